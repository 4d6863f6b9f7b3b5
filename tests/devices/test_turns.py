"""One run at a time has a device."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
from stand_in import Lab, StandIn

from edgedet.devices import Address, RemoteDevice, parse_address
from edgedet.devices.together import open_all
from edgedet.devices.turns import Turn
from edgedet.errors import UsageError


@pytest.fixture
def said() -> list[str]:
    return []


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def has_turn(stand_in: StandIn) -> bool:
    return any((session / "turn").exists() for session in stand_in.sessions)


def test_a_second_run_waits_until_the_device_is_free(stand_in: StandIn, said: list[str]) -> None:
    first = RemoteDevice(stand_in.address)
    threading.Timer(3.0, first.close).start()
    with RemoteDevice(stand_in.address, tell=said.append) as second:
        assert said == ["ssh://pi@camera is busy with another run; waiting for it"]
        assert list(second.execute(["-c", "pass"], {})) == []
    assert stand_in.is_clean


def test_two_runs_that_name_two_devices_in_another_order_have_them_one_after_the_other(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = lab.machine("left"), lab.machine("right")
    ask, both, first = RemoteDevice.ask_turn, threading.Barrier(2), threading.local()

    def ask_and_meet(device: RemoteDevice, others: Sequence[str]) -> Turn:
        turn = ask(device, others)
        if not hasattr(first, "asked"):
            first.asked = True
            both.wait(30)  # each has one device now, and next asks for the other's
        return turn

    monkeypatch.setattr(RemoteDevice, "ask_turn", ask_and_meet)
    having: list[int] = []
    most: list[int] = []

    def run(addresses: list[Address]) -> None:
        with ExitStack() as stack:
            open_all(addresses, stack, stay=False, tell=lambda _: None)
            having.append(1)
            most.append(len(having))
            time.sleep(1)
            having.pop()

    orders = ([left.address, right.address], [right.address, left.address])
    threads = [in_thread(lambda order=order: run(order)) for order in orders]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == [1, 1]
    assert left.is_clean
    assert right.is_clean


def test_a_run_that_waits_for_one_device_leaves_the_other_to_others(lab: Lab, said: list[str]) -> None:
    left, right = lab.machine("left"), lab.machine("right")
    opened = threading.Event()

    def run() -> None:
        with ExitStack() as stack:
            open_all([left.address, right.address], stack, stay=False, tell=said.append)
            opened.set()

    with RemoteDevice(right.address):
        waiting = in_thread(run)
        deadline = time.monotonic() + 20
        while not said:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        for _ in range(30):
            assert not has_turn(left)
            time.sleep(0.1)
        with RemoteDevice(left.address, tell=said.append):
            assert not opened.is_set()
    waiting.join(30)
    assert opened.is_set()
    assert said == ["ssh://pi@right is busy with another run; waiting for it"]


def test_a_second_run_waits_for_that_of_another_user(lab: Lab, said: list[str]) -> None:
    ours, theirs = lab.machine("camera"), lab.machine("camera-of-other", of="camera")
    with RemoteDevice(theirs.address) as first:
        threading.Timer(3.0, first.close).start()
        with RemoteDevice(ours.address, tell=said.append):
            assert said == ["ssh://pi@camera is busy with another run; waiting for it"]
    assert ours.cache != theirs.cache


def test_where_a_machine_has_no_names_runs_of_one_user_wait(lab: Lab, said: list[str]) -> None:
    stand_in = lab.machine("camera", of="x" * 200)  # which no socket can be named
    with RemoteDevice(stand_in.address) as first:
        threading.Timer(3.0, first.close).start()
        with RemoteDevice(stand_in.address, tell=said.append):
            assert said == ["ssh://pi@camera is busy with another run; waiting for it"]


@pytest.mark.parametrize(
    ("name", "of"), [("192.168.0.7", "camera"), ("camera", "x" * 200)], ids=["of two users", "without names"]
)
def test_one_machine_by_two_addresses_is_refused_at_once(
    lab: Lab, said: list[str], name: str, of: str
) -> None:
    stand_in, other = lab.machine("camera", of=of), lab.machine(name, of=of).address
    if other == stand_in.address:
        other = parse_address(f"ssh://pi@192.168.0.7?python={other.python}")
    with (
        ExitStack() as stack,
        pytest.raises(UsageError, match="two of the devices are one machine") as caught,
    ):
        open_all([stand_in.address, other], stack, stay=False, tell=said.append)
    assert {"ssh://pi@camera", "ssh://pi@192.168.0.7"} <= set(re.split("[ ;]", str(caught.value)))
    assert said == []
    assert stand_in.is_clean


def test_a_machine_with_two_addresses_is_found_while_another_run_has_it(lab: Lab, said: list[str]) -> None:
    stand_in, other = lab.machine("camera"), lab.machine("192.168.0.7", of="camera")
    with (
        RemoteDevice(stand_in.address),
        ExitStack() as stack,
        pytest.raises(UsageError, match="two of the devices are one machine"),
    ):
        open_all([stand_in.address, other.address], stack, stay=False, tell=said.append)
    assert said == []
