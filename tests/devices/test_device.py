from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from stand_in import Lab, StandIn

from edgedet.devices import RemoteDevice, agent, keeper, parse_address
from edgedet.devices.adb import TRANSPORT as ADB
from edgedet.devices.blob import Blob
from edgedet.errors import InternalError, MissingDeviceError, UsageError, UserError

COUNT = """
import sys, time
from pathlib import Path
from types import ModuleType
import numpy as np
from edgedet.devices.records import Record, RecordWriter
writer = RecordWriter(Path(sys.argv[1]) / "records")
for number in range(12):
    writer.write(Record({"number": number}, {"square": np.full(3, number**2)}))
    time.sleep(0.05)
"""
FAIL = """
import sys
from pathlib import Path
from types import ModuleType
from edgedet.devices.records import Record, RecordWriter, error_header
from edgedet.errors import UsageError
error = UsageError("no such thing", got="a", expected="b", fix="c")
RecordWriter(Path(sys.argv[1]) / "records").write(Record(error_header(error)))
"""

BOTH = pytest.mark.parametrize("stand_in", ["ssh", "adb"], indirect=True)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def device(stand_in: StandIn, said: list[str]) -> Iterator[RemoteDevice]:
    with RemoteDevice(stand_in.address, tell=said.append, reconnect_s=20) as device:
        yield device


def kill_keeper(session: Path) -> None:
    subprocess.run(["pkill", "-9", "-f", f"keeper.py {session}"], check=True)


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and " Z " not in stat.read_text()


def are_running(words: str) -> bool:
    """Whether there is a process with these words on its command line, be it one that is just ending."""
    found = subprocess.run(["pgrep", "-f", re.escape(words)], capture_output=True, check=False)
    return found.stdout != b""


def wait_until(condition, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@BOTH
def test_records_come_in_their_order_and_nothing_is_left(stand_in: StandIn) -> None:
    with RemoteDevice(stand_in.address) as device:
        records = list(device.execute(["-c", COUNT], {}))
        (session,) = stand_in.sessions
        assert (session / "code" / "edgedet").is_dir()
        assert list((session / "jobs" / "0001" / "records").iterdir()) == []
    assert [record.header["number"] for record in records] == list(range(12))
    assert np.array_equal(records[5].arrays["square"], [25, 25, 25])
    assert stand_in.is_clean


@BOTH
def test_a_connection_that_is_cut_is_opened_again_and_read_on(
    device: RemoteDevice, said: list[str], stand_in: StandIn
) -> None:
    found = []
    for record in device.execute(["-c", COUNT.replace("0.05", "0.2")], {}):
        found.append(record.header["number"])
        if len(found) in (3, 7):
            os.kill(device._connection._process.pid, signal.SIGKILL)
    assert found == list(range(12))
    assert said == [f"lost the connection to {stand_in.address}; connecting again"] * 2
    (session,) = stand_in.sessions
    assert list((session / "jobs" / "0001" / "records").iterdir()) == []


@BOTH
def test_a_file_that_was_cut_goes_on_where_it_was_cut(device: RemoteDevice, stand_in: StandIn) -> None:
    data = np.random.default_rng(0).bytes(3 * 2**20)
    blob = Blob.of(data)
    pieces = []

    def cut_in_the_middle(items, description, total):
        for number, item in enumerate(items):
            pieces.append(item[1])
            if number == 5:
                os.kill(device._connection._process.pid, signal.SIGKILL)
            yield item

    device.send({"some/file": blob}, cut_in_the_middle)
    assert pieces == [256 * 1024 * number for number in range(12)]
    assert (stand_in.sessions[0] / "some" / "file").read_bytes() == data
    assert device.send({"another/name": blob}) == 0


@BOTH
def test_what_stays_on_a_device_is_not_sent_again(stand_in: StandIn) -> None:
    blob = Blob.of(b"a model")
    with RemoteDevice(stand_in.address, stay=True) as device:
        assert device.send({"model": blob}) == 7
    assert stand_in.sessions == []
    with RemoteDevice(stand_in.address) as device:
        assert device.send({"model": blob}) == 0
        assert (stand_in.sessions[0] / "model").read_bytes() == b"a model"


def test_bytes_that_are_not_what_they_were_hashed_as_are_refused(device: RemoteDevice) -> None:
    blob = Blob(Blob.of(b"one").sha256, 3, b"two")
    with pytest.raises(InternalError, match="did not get a file whole; got sha256 "):
        device.send({"file": blob})


def test_no_file_leaves_the_folder_of_the_session(device: RemoteDevice, stand_in: StandIn) -> None:
    with pytest.raises(Exception, match=r"ValueError: .* is not in the subpath"):
        device.send({"../../outside": Blob.of(b"x")})
    assert not list(stand_in.cache.rglob("outside"))


@BOTH
def test_an_error_of_a_job_is_the_same_error_here(device: RemoteDevice) -> None:
    with pytest.raises(UsageError, match=r"no such thing; got a; expected b\. Fix: c"):
        list(device.execute(["-c", FAIL], {}))


@BOTH
def test_a_job_that_ends_without_a_word_is_shown_with_its_last_ones(device: RemoteDevice) -> None:
    with pytest.raises(InternalError, match=r"exit status 7: .*out of paper"):
        list(device.execute(["-c", "import sys; print('out of paper'); sys.exit(7)"], {}))
    with pytest.raises(InternalError, match="killed: perhaps it had too little memory"):
        list(device.execute(["-c", "import os; os.kill(os.getpid(), 9)"], {}))


def test_two_hosts_that_leave_the_same_file_do_not_spoil_it(stand_in: StandIn) -> None:
    blob = Blob.of(bytes(300_000))
    with (
        RemoteDevice(stand_in.address, stay=True, wait=False) as one,
        RemoteDevice(stand_in.address, stay=True, wait=False) as other,
    ):

        def beside(items, description, total=None):
            for number, item in enumerate(items):
                yield item
                if not number:
                    other.send({"b": blob})

        one.send({"a": blob}, beside)
        assert sorted((session / n).exists() for session in stand_in.sessions for n in "ab").count(True) == 2


def test_what_another_run_left_is_checked_before_it_is_used(stand_in: StandIn) -> None:
    blob = Blob.of(b"a model")
    with RemoteDevice(stand_in.address, stay=True) as device:
        device.send({"model": blob})
    (kept,) = (stand_in.cache / "edgedet" / "device" / "blobs").iterdir()
    kept.write_bytes(b"")  # as after a loss of power
    with RemoteDevice(stand_in.address) as device:
        assert device.send({"model": blob}) == 7


def test_a_job_whose_keeper_was_killed_is_lost_and_not_run_twice(
    device: RemoteDevice, stand_in: StandIn
) -> None:
    records = device.execute(["-c", COUNT.replace("0.05", "0.5")], {})
    next(records)
    (session,) = stand_in.sessions
    kill_keeper(session)
    os.kill(device._connection._process.pid, signal.SIGKILL)
    with pytest.raises(InternalError, match="what kept it running was ended"):
        list(records)
    pid = int((session / "jobs" / "0001" / "pid").read_text())
    wait_until(lambda: not is_running(pid))


def test_a_job_whose_keeper_alone_was_killed_is_lost_at_once(
    device: RemoteDevice, stand_in: StandIn, said: list[str]
) -> None:
    records = device.execute(["-c", COUNT.replace("0.05", "60")], {})
    next(records)
    (session,) = stand_in.sessions
    kill_keeper(session)
    with pytest.raises(InternalError, match="what kept it running was ended"):
        list(records)
    pid = int((session / "jobs" / "0001" / "pid").read_text())
    wait_until(lambda: not is_running(pid))
    assert list(device.execute(["-c", "pass"], {})) == []
    assert said == []


def test_a_session_whose_keeper_was_killed_is_removed_when_it_is_closed(
    stand_in: StandIn, said: list[str]
) -> None:
    with RemoteDevice(stand_in.address, tell=said.append):
        kill_keeper(stand_in.sessions[0])
    assert said == []
    assert stand_in.is_clean


def test_a_device_is_not_given_to_two_runs_when_a_keeper_was_killed(
    device: RemoteDevice, stand_in: StandIn
) -> None:
    (session,) = stand_in.sessions
    kill_keeper(session)
    os.kill(device._connection._process.pid, signal.SIGKILL)
    device.send({"file": Blob.of(b"1")})  # through another connection, which starts another keeper
    wait_until(lambda: subprocess.run(["pgrep", "-f", f"keeper.py {session}"], check=False).returncode == 0)
    time.sleep(1)
    with RemoteDevice(stand_in.address, wait=False) as other:
        assert not other.ask_turn().has


def test_a_session_without_a_keeper_is_removed_by_a_later_run(stand_in: StandIn) -> None:
    device = RemoteDevice(stand_in.address)
    (session,) = stand_in.sessions
    kill_keeper(session)
    device.interrupt()
    os.utime(session / "lease", (0, 0))  # the machine was off for years
    with RemoteDevice(stand_in.address):
        assert session not in stand_in.sessions
    assert stand_in.is_clean


def test_a_job_that_nothing_looks_after_is_ended_by_a_later_run(stand_in: StandIn) -> None:
    device = RemoteDevice(stand_in.address)
    next(device.execute(["-c", COUNT.replace("0.05", "600")], {}))
    (session,) = stand_in.sessions
    pid = int((session / "jobs" / "0001" / "pid").read_text())
    device.interrupt()
    kill_keeper(session)
    os.utime(session / "lease", (0, 0))
    with RemoteDevice(stand_in.address):
        assert not is_running(pid)


def test_an_interruption_is_not_taken_for_a_lost_connection(device: RemoteDevice, said: list[str]) -> None:
    ended: list[BaseException] = []

    def follow() -> None:
        try:
            list(device.execute(["-c", COUNT.replace("range(12)", "range(10**8)")], {}))
        except MissingDeviceError as exc:
            ended.append(exc)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_until(lambda: device._following)
    os.kill(device._connection._process.pid, signal.SIGKILL)
    time.sleep(0.2)  # it waits now before it connects again
    device.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_packages_that_the_device_lacks_are_named(stand_in: StandIn, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    address = parse_address(f"ssh://pi@camera?python={tmp_path}/bare/bin/python")
    with pytest.raises(MissingDeviceError, match=r"no numpy, cv2, pydantic.*bin/python -m pip install numpy"):
        RemoteDevice(address)
    assert stand_in.sessions == []


def test_a_device_without_room_is_found_out_before_anything_is_sent(device: RemoteDevice) -> None:
    blob = Blob("0" * 64, 10**15, b"")
    with pytest.raises(MissingDeviceError, match="has no room"):
        device.send({"file": blob})


@BOTH
def test_a_run_that_is_given_up_ends_on_the_device_as_well(stand_in: StandIn) -> None:
    with RemoteDevice(stand_in.address) as device:
        for _ in device.execute(["-c", COUNT.replace("range(12)", "range(10**7)")], {}):
            break
    assert stand_in.is_clean
    wait_until(lambda: not are_running("range(10**7)"))


@BOTH
def test_a_host_that_does_not_come_back_leaves_nothing_when_the_lease_is_over(stand_in: StandIn) -> None:
    device = RemoteDevice(stand_in.address, lease_s=3)
    records = device.execute(["-c", COUNT.replace("range(12)", "range(10**6)")], {})
    next(records)
    device.interrupt()  # as if the host had lost its power
    assert len(stand_in.sessions) == 1
    wait_until(lambda: stand_in.is_clean)
    wait_until(lambda: not are_running("range(10**6)"))


def test_a_session_that_the_device_has_forgotten_is_not_taken_for_an_empty_one(stand_in: StandIn) -> None:
    device = RemoteDevice(stand_in.address, lease_s=3)
    records = device.execute(["-c", COUNT.replace("0.05", "1")], {})
    next(records)
    os.kill(device._connection._process.pid, signal.SIGSTOP)
    wait_until(lambda: not stand_in.sessions)
    os.kill(device._connection._process.pid, signal.SIGKILL)
    with pytest.raises(MissingDeviceError, match="has forgotten this run"):
        list(records)
    device.close()


def test_a_session_that_somebody_removed_is_closed_like_another(stand_in: StandIn, said: list[str]) -> None:
    with RemoteDevice(stand_in.address, tell=said.append):
        shutil.rmtree(stand_in.sessions[0])
    assert said == []
    assert stand_in.is_clean


def test_a_device_that_is_gone_when_it_is_closed_is_told_and_raises_nothing(
    stand_in: StandIn, lab: Lab, said: list[str]
) -> None:
    with RemoteDevice(stand_in.address, tell=said.append, lease_s=3) as device:
        os.kill(device._connection._process.pid, signal.SIGKILL)
        lab.fail_once("ssh: camera port 22: No route to host")
    assert said == ["ssh://pi@camera may keep what was sent, for 3 s (ssh: camera port 22: No route to host)"]


def test_a_device_that_fails_when_it_is_closed_is_told_and_raises_nothing(
    stand_in: StandIn, said: list[str]
) -> None:
    with RemoteDevice(stand_in.address, tell=said.append, lease_s=3):
        end = stand_in.sessions[0] / "end"
        end.symlink_to(end)  # which nobody can open
    assert len(said) == 1
    assert "may keep what was sent, for 3 s (ssh://pi@camera cannot do what it is asked for" in said[0]


def test_a_shell_without_that_python_is_named(stand_in: StandIn) -> None:
    with pytest.raises(MissingDeviceError, match=r"has no Python at /nowhere/python.*\?python=PATH"):
        RemoteDevice(parse_address("ssh://pi@camera?python=/nowhere/python"))


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (
            "No ED25519 host key is known for [camera]:2299 and you have requested strict checking.\n"
            "Host key verification failed.",
            "compare the key",
        ),
        (
            "@@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@@" + " It is also possible" * 30,
            "why its key changed",
        ),
        ("pi@camera: Permission denied (publickey).", "ssh-copy-id"),
        ("ssh: connect to host camera port 22: Connection refused", "ssh camera true|ssh pi@camera true"),
    ],
)
def test_what_ssh_says_is_said_with_what_helps(stand_in: StandIn, words: str, fix: str) -> None:
    script = Path(os.environ["PATH"].partition(":")[0]) / "ssh"
    script.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 255\n")
    with pytest.raises(MissingDeviceError, match=fix) as caught:
        RemoteDevice(stand_in.address)
    assert words[:60] in str(caught.value)


@pytest.mark.parametrize(
    ("stand_in", "words"),
    [
        ("ssh", "ssh: Could not resolve hostname camera: Temporary failure in name resolution"),
        ("ssh", "ssh: connect to host camera port 22: Connection refused"),
        ("adb", "adb: device 'camera' not found"),
        ("adb", "adb: device offline"),
    ],
    indirect=["stand_in"],
)
def test_a_device_that_was_reached_is_waited_for_whatever_the_network_says(
    stand_in: StandIn, lab: Lab, said: list[str], words: str
) -> None:
    with RemoteDevice(stand_in.address, tell=said.append) as device:
        os.kill(device._connection._process.pid, signal.SIGKILL)
        lab.fail_once(words)
        assert device.send({"file": Blob.of(b"1")}) == 1
    assert said == [f"lost the connection to {stand_in.address}; connecting again"], "and not for each try"


@pytest.mark.parametrize(
    ("stand_in", "words"),
    [
        ("ssh", "Host key verification failed."),
        ("ssh", "pi@camera: Permission denied (publickey)."),
        ("adb", "adb: device unauthorized."),
    ],
    indirect=["stand_in"],
)
def test_a_device_that_lets_nobody_in_any_more_is_not_waited_for(
    stand_in: StandIn, lab: Lab, said: list[str], words: str
) -> None:
    with RemoteDevice(stand_in.address, tell=said.append) as device:
        os.kill(device._connection._process.pid, signal.SIGKILL)
        lab.fail_once(words)
        with pytest.raises(MissingDeviceError, match=re.escape(words)):
            device.send({"file": Blob.of(b"1")})
    assert said == [f"lost the connection to {stand_in.address}; connecting again"]


@pytest.mark.parametrize(
    ("stand_in", "words", "fix"),
    [
        ("ssh", "ssh: Could not resolve hostname camera: Name or service not known", "check the name"),
        ("adb", "adb: device 'camera' not found", "adb connect"),
    ],
    indirect=["stand_in"],
)
def test_a_device_that_was_never_reached_is_told_with_what_helps(
    stand_in: StandIn, lab: Lab, words: str, fix: str
) -> None:
    lab.fail_once(words)
    with pytest.raises(MissingDeviceError, match=fix):
        RemoteDevice(stand_in.address)


@BOTH
def test_a_connection_through_which_nothing_comes_any_more_is_lost(
    stand_in: StandIn, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedet.devices.connection._SILENCE_S", 3.0)
    found = []
    with RemoteDevice(stand_in.address, tell=said.append, lease_s=60) as device:
        for record in device.execute(["-c", COUNT], {}):
            found.append(record.header["number"])
            if len(found) == 3:
                os.kill(device._connection._process.pid, signal.SIGSTOP)
    assert found == list(range(12))
    assert said == [f"lost the connection to {stand_in.address}; connecting again"]


def test_a_device_that_has_nothing_to_say_answers_that_it_is_there(
    stand_in: StandIn, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedet.devices.connection._SILENCE_S", 3.0)
    with RemoteDevice(stand_in.address, tell=said.append) as device:
        assert list(device.execute(["-c", "import time; time.sleep(6)"], {})) == []
    assert said == []


def test_a_host_that_is_slow_to_read_is_not_taken_for_gone(stand_in: StandIn, said: list[str]) -> None:
    job = COUNT.replace("np.full(3, number**2)", "np.zeros(10**5)")  # more than fits between the two
    with RemoteDevice(stand_in.address, tell=said.append, lease_s=3) as device:
        records = device.execute(["-c", job], {})
        assert next(records).header["number"] == 0
        time.sleep(8)
        assert [record.header["number"] for record in records] == list(range(1, 12))
    assert said == []


@BOTH
def test_a_job_of_edgedet_is_run_by_its_name(stand_in: StandIn) -> None:
    order = {"source": "nowhere", "images": "", "options": {}}
    with (
        RemoteDevice(stand_in.address) as device,
        pytest.raises(UserError, match=f"^{re.escape(str(stand_in.address))}: "),
    ):
        list(device.run("benchmark", order))
    assert stand_in.is_clean


def test_the_stand_in_for_adb_takes_what_is_given_to_adb_and_nothing_else(lab: Lab) -> None:
    words = ADB.command(lab.machine(transport="adb").address, ["echo", "it's", "there"])
    assert words == ["adb", "-s", "camera", "shell", "-T", """echo 'it'"'"'s' there"""]
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    assert run(words).stdout.endswith("it's there\n")
    for others in (words[:-1], [*words, "more"], [words[0], "shell", *words[4:]], ["adb", "devices"]):
        assert "unknown command" in run(others).stderr


def test_a_machine_without_ssh_is_told_what_to_install(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(MissingDeviceError, match="openssh-client"):
        RemoteDevice(stand_in.address)


def test_an_old_python_on_the_device_is_named(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedet.devices.device._OLDEST_PYTHON", (9, 9))
    with pytest.raises(MissingDeviceError, match="too old a Python; got 3"):
        RemoteDevice(stand_in.address)
    assert stand_in.sessions == []


@pytest.mark.parametrize("module", [agent, keeper])
def test_what_is_sent_to_run_needs_nothing_but_an_old_python(module: ModuleType) -> None:
    tree = ast.parse(Path(module.__file__).read_bytes(), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} <= {
        keeper.__name__
    }
