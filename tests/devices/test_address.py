from __future__ import annotations

import pytest

from edgedet.devices import Address, parse_address
from edgedet.devices.ssh import TRANSPORT as SSH
from edgedet.devices.transport import shell_line
from edgedet.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("local", Address("local")),
        ("ssh://pi@camera.local", Address("ssh", "pi@camera.local")),
        ("ssh://camera:2222", Address("ssh", "camera", 2222)),
        ("ssh://Camera", Address("ssh", "Camera")),
        (
            "ssh://pi@10.0.0.7?python=~/venv/bin/python",
            Address("ssh", "pi@10.0.0.7", None, "~/venv/bin/python"),
        ),
        ("adb://emulator-5554", Address("adb", "emulator-5554")),
        ("adb://192.168.1.5:5555", Address("adb", "192.168.1.5:5555")),
    ],
)
def test_a_device_is_read_from_its_name_and_shown_by_it(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text.partition("?")[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "camera",
        "http://camera",
        "ssh://",
        "ssh://-oProxyCommand=sh",
        "ssh://camera/folder",
        "ssh://camera:port",
        "ssh://camera:99999",
        "ssh://camera?pyton=python3",
        "ssh://camera?python=$(reboot)",
        "ssh://camera?python=-c",
        "adb://a b",
        "ssh://camera;reboot",
    ],
)
def test_what_is_no_device_is_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"ssh://user@host\[:port\]"):
        parse_address(text)


def test_a_password_is_refused_with_the_way_to_do_without() -> None:
    with pytest.raises(UsageError, match="ssh-copy-id pi@camera"):
        parse_address("ssh://pi:hunter2@camera")


@pytest.mark.parametrize(
    "text",
    [
        "ssh://pi:hunter2@camera",
        "ssh://pi:hunter2@camera:22x",
        "ssh://pi:hunter2@camera?python",
        "ssh://pi:hun/ter2@camera",
        "ssh://pi:hunter2:@camera",
        "pi:hunter2@camera",
    ],
)
def test_a_password_is_never_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "hun" not in str(caught.value)


def test_the_shell_of_a_device_reads_words_as_they_are_and_finds_its_home() -> None:
    assert shell_line(["~/my env/python", "-c", "import sys; print('$HOME')"]) == (
        "~/'my env/python' -c 'import sys; print('\"'\"'$HOME'\"'\"')'"
    )


def test_ssh_asks_nobody_and_takes_no_key_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDET_SSH_CONFIG", "my.conf")
    words = SSH.command(Address("ssh", "pi@camera", 2222), ["python3", "-c", "pass"])
    assert words[:3] == ["ssh", "-F", "my.conf"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes"} <= set(words)
    assert words[words.index("-p") + 1] == "2222"
    assert words[-3:] == ["--", "pi@camera", "python3 -c pass"]
