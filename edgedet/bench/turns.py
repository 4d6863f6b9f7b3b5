"""Who is measured when: in turns, so that a changing clock or another program slows all alike, or alone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgedet.bench.contenders import Contender
from edgedet.bench.workers import Turn, Worker
from edgedet.errors import EdgedetError, InternalError, MissingError
from edgedet.progress import Track
from edgedet.selection import Skipped

# A ratio has an interval of 95 % from six blocks on; more of them make it narrower.
_LEAST_BLOCKS = 6
_BLOCKS = 10
# Long enough for some frames of a fast detector, and short against the drift of a clock. With less than this
# left for each turn of ten blocks, there are six.
_TURN_S = 0.5
_SHORTEST_TURN_S = 0.1
# One process of an artifact is up to some per cent faster than another for as long as both live, by where its
# memory happens to lie (Mytkowicz et al., Producing Wrong Data Without Doing Anything Obviously Wrong!,
# ASPLOS 2009). So each artifact has as many as a narrow interval of 95 % takes, where there is time for them.
_PROCESSES = 8
_TIME_FOR_PROCESSES_S = 20.0
# Alone: what one point of a curve over time stands for.
_STRETCH_S = 1.0


@dataclass(slots=True)
class Lane:
    """A contender, its worker and what was measured so far.

    Attributes:
        again: Whether it is a second worker of an artifact that has one, so that it shows noise.
    """

    contender: Contender
    worker: Worker
    again: bool = False
    turns: list[Turn] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)

    @property
    def threads(self) -> int:
        """CPU threads."""
        return self.worker.order.threads

    def measure(self, since: float, seconds: float, least_frames: int, *, settle: bool = True) -> None:
        """Keep one more turn; `since` is where the time begins, of `time.monotonic`."""
        self.turns.append(self.worker.measure(seconds, least_frames, settle=settle))
        self.ends_s.append(time.monotonic() - since)


def blocks_of(duration_s: float) -> int:
    """Blocks of turns, two turns each, that so many seconds are cut into."""
    fewest = _BLOCKS if duration_s >= 2 * _BLOCKS * _SHORTEST_TURN_S else _LEAST_BLOCKS
    return max(fewest, round(duration_s / (2 * _TURN_S)))


def processes_of(duration_s: float) -> int:
    """Processes one after another for each artifact, each with its share of the blocks."""
    return _PROCESSES if duration_s >= _TIME_FOR_PROCESSES_S else 1


def order_of(lanes: int, blocks: int) -> list[int]:
    """Whose turn it is: blocks there and back (A B B A), each beginning with another lane.

    A steady drift slows both of a pair alike in each block, and each lane is as often as the others the one
    that goes twice in a row.
    """
    order = []
    for block in range(blocks):
        there = [(block + index) % lanes for index in range(lanes)]
        order += [*there, *reversed(there)]
    return order


def take_turns(
    lanes: Sequence[Lane],
    duration_s: float,
    least_frames: int,
    asked: Sequence[str] | None,
    skipped: list[Skipped],
    track: Track,
) -> None:
    """Measure in turns; a worker that ends early is skipped unless its runtime was asked for.

    Raises:
        InternalError: That of a runtime that was asked for did, or all did.
    """
    blocks = blocks_of(duration_s)
    # Those that are compared with each other stand next to each other, so that little time lies between.
    near = sorted(lanes, key=lambda lane: (lane.threads, lane.contender.runtime, lane.contender.batch))
    order = [near[index] for index in order_of(len(near), blocks)]
    frames = max(1, math.ceil(least_frames / (2 * blocks)))
    parts = np.array_split(np.arange(blocks), processes_of(duration_s))
    anew = {2 * len(near) * int(part[0]) for part in parts[1:]}
    begun = time.monotonic()
    failures = _Failures(lanes, asked, skipped)
    for number, lane in enumerate(track(order, "Measuring", len(order))):
        for other in near if number in anew else ():
            with failures.of(other) as go:
                if go:
                    other.worker.restart()
        with failures.of(lane) as go:
            if go:
                lane.measure(begun, duration_s / (2 * blocks), frames)
    failures.check()


def run_alone(
    lanes: Sequence[Lane],
    duration_s: float,
    asked: Sequence[str] | None,
    skipped: list[Skipped],
    track: Track,
) -> None:
    """Measure each for the whole time before the next, as a device that does nothing else.

    Raises:
        InternalError: As `take_turns`.
    """
    stretches = max(2, round(duration_s / _STRETCH_S))
    failures = _Failures(lanes, asked, skipped)
    begun = time.monotonic()
    for place, lane in track([(n, lane) for lane in lanes for n in range(stretches)], "Measuring"):
        begun = begun if place else time.monotonic()
        with failures.of(lane) as go:
            if go:
                lane.measure(begun, duration_s / stretches, 1, settle=place == 0)
    failures.check()


class _Failures:
    """Which lanes ended early, with the reason: the others go on."""

    def __init__(self, lanes: Sequence[Lane], asked: Sequence[str] | None, skipped: list[Skipped]) -> None:
        self._lanes, self._asked, self._skipped = lanes, asked, skipped
        self._found: dict[int, InternalError] = {}
        self._lane = lanes[0]

    def of(self, lane: Lane) -> _Failures:
        """A context that is told whether the lane still runs, and takes its failure."""
        self._lane = lane
        return self

    def __enter__(self) -> bool:
        return id(self._lane) not in self._found

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> bool:
        if not isinstance(value, InternalError) or (self._asked is not None and not self._lane.again):
            return False
        lane = self._lane
        self._found[id(lane)] = value
        lane.turns.clear()
        lane.ends_s.clear()
        if not lane.again:
            self._skipped.append(left_out(lane.contender, [lane.threads], value))
        return True

    def check(self) -> None:
        """Raise the first failure where no lane is left."""
        if len(self._found) == len(self._lanes):
            raise next(iter(self._found.values()))


def left_out(contender: Contender, threads: Sequence[int], why: EdgedetError) -> Skipped:
    """What is not measured, with which numbers of threads: others may have a row."""
    count = " and ".join(map(str, threads))
    reason = str(why)
    if not isinstance(why, MissingError):
        batch = f" and a batch of {contender.batch}" if contender.batch > 1 else ""
        reason = f"with {count} thread{'s' * (count != '1')}{batch}, {why}"
    return Skipped(runtime=contender.runtime, precision=contender.precision, reason=reason)
