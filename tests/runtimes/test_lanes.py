"""Openings of one artifact for the threads of an application."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgedet_runtimes.lanes import Lanes, inferences_side_by_side


def test_no_two_threads_have_one_opening_and_there_are_never_more_than_asked_for() -> None:
    opened: list[threading.Lock] = []

    def open_one() -> threading.Lock:
        opened.append(threading.Lock())
        return opened[-1]

    lanes = Lanes(open_one, most=3)
    meeting = threading.Barrier(3)  # so that three are in use at once

    def work(number: int) -> bool:
        with lanes.one() as lane:
            alone = lane.acquire(blocking=False)
            if number < 3:
                meeting.wait(30)
            time.sleep(0.001)
            lane.release()
            return alone

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))
    assert len(opened) == 3


def test_one_thread_has_one_opening() -> None:
    opened: list[object] = []
    lanes = Lanes(lambda: opened.append(None), most=8)
    for _ in range(5):
        with lanes.one():
            pass
    assert len(opened) == 1


def test_an_opening_that_fails_leaves_room_for_the_next() -> None:
    results = iter([1, OSError("no memory"), 2])

    def open_one() -> int:
        found = next(results)
        if isinstance(found, OSError):
            raise found
        return found

    lanes = Lanes(open_one, most=2)
    with lanes.one() as first:
        with pytest.raises(OSError, match="no memory"), lanes.one():
            pass
        with lanes.one() as second:
            assert {first, second} == {1, 2}


@pytest.mark.parametrize(
    ("threads", "cores", "expected"), [(1, 4, 4), (2, 4, 2), (3, 4, 1), (8, 4, 1), (None, 4, 1)]
)
def test_inferences_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, cores: int, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert inferences_side_by_side(threads) == expected
