"""How the speed of one artifact on one device changed from run to run, and what of it is more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from edgedet.bench.history import Entry
from edgedet.spec import Value

Verdict = Literal["slower", "faster", "noise"]

_BARS = "▁▂▃▄▅▆▇█"


class Change(Value):
    """From one run to a later one.

    Attributes:
        share: Of the median time of an inference: 0.05 is 5 % slower.
        noise: Largest change that the noise of both runs explains; None where that of one is not known.
        verdict: "noise" up to there, and where it is not known.
    """

    share: float
    noise: float | None
    verdict: Verdict


class Step(Value):
    """One run in a trend.

    Attributes:
        entry: What was measured.
        since_previous: Against the run before; None for the first.
        since_first: Against the first; None for the first.
        changed: What differs from the run before: the model, the checkpoint, the system, versions.
    """

    entry: Entry
    since_previous: Change | None
    since_first: Change | None
    changed: tuple[str, ...]


class Trend(Value):
    """Runs of one artifact on one device with the same images, batch, threads and scenario, oldest first.

    `sparkline` shows the medians, each a bar between the least and the largest.
    """

    device: str
    cpu: str
    cores: int
    detector: str
    images: str
    scenario: str
    runtime: str
    precision: str
    threads: int
    batch: int
    steps: tuple[Step, ...]
    sparkline: str


def trends_of(entries: Iterable[Entry]) -> tuple[Trend, ...]:
    """One trend for whatever can be compared, in the order of first runs."""
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_key(entry), []).append(entry)
    return tuple(_trend(members) for members in groups.values())


def change_between(before: Entry, after: Entry) -> Change:
    """What changed, beside what chance may do.

    The half widths of both intervals of the median are added in squares, as errors that know nothing of each
    other. On top comes the larger floor of both runs, what one artifact measured as two differed by: it is
    what the intervals do not know.
    """
    share = after.p50_ms / before.p50_ms - 1
    widths = [_half_width(entry) for entry in (before, after)]
    known = [width for width in widths if width is not None]
    if len(known) < 2 or not (_knows_its_noise(before) and _knows_its_noise(after)):
        return Change(share=round(share, 4), noise=None, verdict="noise")
    floor = max(before.noise_floor or 0.0, after.noise_floor or 0.0)
    noise = math.expm1(math.hypot(*known)) + floor
    beyond = abs(math.log1p(share)) > math.log1p(noise)
    verdict: Verdict = "noise" if not beyond else "slower" if share > 0 else "faster"
    return Change(share=round(share, 4), noise=round(noise, 4), verdict=verdict)


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, between the least and the largest of them."""
    low, high = min(values), max(values)
    steps = [round((value - low) / (high - low) * (len(_BARS) - 1)) if high > low else 0 for value in values]
    return "".join(_BARS[step] for step in steps)


def _key(entry: Entry) -> tuple[object, ...]:
    place = (entry.device, entry.cpu, entry.cores)
    how = (entry.images, entry.scenario, entry.threads, entry.batch)
    return (*place, entry.detector, entry.runtime, entry.precision, *how)


def _trend(members: Sequence[Entry]) -> Trend:
    first = members[0]
    steps = []
    for before, entry in zip((None, *members), members, strict=False):
        steps.append(
            Step(
                entry=entry,
                since_previous=None if before is None else change_between(before, entry),
                since_first=None if before is None else change_between(first, entry),
                changed=() if before is None else _changed(before, entry),
            )
        )
    return Trend(
        **{
            name: getattr(first, name)
            for name in ("device", "cpu", "cores", "detector", "images", "scenario")
        },
        runtime=first.runtime,
        precision=first.precision,
        threads=first.threads,
        batch=first.batch,
        steps=tuple(steps),
        sparkline=sparkline([member.p50_ms for member in members]),
    )


def _changed(before: Entry, after: Entry) -> tuple[str, ...]:
    found = [
        name
        for name, is_other in (
            ("checkpoint", before.checkpoint_sha256 != after.checkpoint_sha256),
            ("model", before.model_sha256 != after.model_sha256),
            ("system", before.os != after.os),
        )
        if is_other
    ]
    for name in sorted(before.packages.keys() | after.packages.keys()):
        one, other = before.packages.get(name, "none"), after.packages.get(name, "none")
        if one != other:
            found.append(f"{name} {one} to {other}")
    return tuple(found)


def _knows_its_noise(entry: Entry) -> bool:
    """Whether a run saw what processes of one artifact differ by, which no interval within one can tell."""
    return entry.noise_floor is not None or (entry.processes or 1) > 1


def _half_width(entry: Entry) -> float | None:
    """Of the interval of the median, as a difference of logarithms."""
    if entry.p50_low_ms is None or entry.p50_high_ms is None:
        return None
    return math.log(entry.p50_high_ms / entry.p50_low_ms) / 2
