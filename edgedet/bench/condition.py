"""Clock, temperature, throttling and energy of the machine, where it tells them: nothing is estimated.

All of it is read from Linux's /sys and /proc under a root that can be another folder; elsewhere everything is
None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from edgedet.spec import Value

ROOT = Path("/")

_CPU = "sys/devices/system/cpu"
_RAPL = "sys/class/powercap"
_SUPPLY = "sys/class/power_supply"

# Colder and hotter than any processor that runs: a sensor that is not connected.
_PLAUSIBLE_CELSIUS = (-40.0, 150.0)


class Condition(Value):
    """The state of the machine at one moment; None is what it does not tell.

    Attributes:
        mhz: Clock of each core in its order, and none at all where no core tells it.
        governors: Frequency governors in use, each once.
        celsius: Hottest of the thermal zones and hardware sensors.
        throttle_events: Times that cores and packages were slowed for their heat, since the machine started.
        cgroup_throttled: Times that the container was stopped because it had used up its share of the CPU.
    """

    mhz: tuple[float, ...] = ()
    governors: tuple[str, ...] = ()
    celsius: float | None = None
    throttle_events: int | None = None
    cgroup_throttled: int | None = None

    @property
    def mean_mhz(self) -> float | None:
        """Mean clock of the cores."""
        return sum(self.mhz) / len(self.mhz) if self.mhz else None


class EnergyCounters(Value):
    """Counters of energy and the power at one moment.

    Attributes:
        rapl_uj: Microjoules of each processor package by its name: a counter that wraps around.
        rapl_range_uj: Where each of them does.
        battery_w: What the battery gives; None where there is none or it does not tell.
    """

    rapl_uj: dict[str, int] = Field(default_factory=dict)
    rapl_range_uj: dict[str, int] = Field(default_factory=dict)
    battery_w: float | None = None


def read_condition(root: Path = ROOT) -> Condition:
    """The state of the machine now."""
    cores = sorted((root / _CPU).glob("cpu[0-9]*"), key=lambda path: int(path.name[3:]))
    clocks = [_number(core / "cpufreq" / "scaling_cur_freq") for core in cores]
    governors = [_text(core / "cpufreq" / "scaling_governor") for core in cores]
    return Condition(
        mhz=tuple(kilohertz / 1000 for kilohertz in clocks if kilohertz is not None),
        governors=tuple(sorted({governor for governor in governors if governor})),
        celsius=_hottest(root),
        throttle_events=_throttle_events(cores),
        cgroup_throttled=_cgroup_throttled(root),
    )


def read_energy(root: Path = ROOT) -> EnergyCounters:
    """The counters now; those that may not be read are left out."""
    counters, ranges = {}, {}
    for zone in sorted((root / _RAPL).glob("intel-rapl:*")):
        if zone.name.count(":") != 1 or not _text(zone / "name").startswith("package"):
            continue  # a part of a package, or what holds a package as well
        energy, highest = _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
        if energy is not None and highest is not None:
            counters[zone.name], ranges[zone.name] = energy, highest
    return EnergyCounters(rapl_uj=counters, rapl_range_uj=ranges, battery_w=_battery_w(root))


def joules_between(before: EnergyCounters, after: EnergyCounters, seconds: float) -> tuple[float | None, str]:
    """Energy of a stretch, and where that was read: "rapl", "battery" or "".

    A counter that wrapped around is taken to have done so once: it takes minutes at the least. Of a battery,
    the mean of the power at both ends times the seconds.
    """
    both = before.rapl_uj.keys() & after.rapl_uj.keys()
    if both:
        used = 0
        for name in both:
            difference = after.rapl_uj[name] - before.rapl_uj[name]
            # The counter goes from 0 to the range, both included.
            used += difference if difference >= 0 else difference + after.rapl_range_uj[name] + 1
        return used / 1e6, "rapl"
    if before.battery_w is not None and after.battery_w is not None:
        return (before.battery_w + after.battery_w) / 2 * seconds, "battery"
    return None, ""


def _hottest(root: Path) -> float | None:
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    sensors = (root / "sys/class/hwmon").glob("hwmon*/temp*_input")
    found = [value / 1000 for path in (*zones, *sensors) if (value := _number(path)) is not None]
    low, high = _PLAUSIBLE_CELSIUS
    return max((celsius for celsius in found if low < celsius < high), default=None)


def _throttle_events(cores: Iterable[Path]) -> int | None:
    """Sum over cores; a package counts once, by the largest of what its cores say of it."""
    own: list[int] = []
    packages: dict[str, int] = {}
    for core in cores:
        counted = _number(core / "thermal_throttle" / "core_throttle_count")
        of_package = _number(core / "thermal_throttle" / "package_throttle_count")
        if counted is not None:
            own.append(counted)
        if of_package is not None:
            package = _text(core / "topology" / "physical_package_id")
            packages[package] = max(of_package, packages.get(package, 0))
    return sum(own) + sum(packages.values()) if own or packages else None


def _cgroup_throttled(root: Path) -> int | None:
    """Of the group of this process, or else of the nearest that is mounted."""
    hierarchy = re.search(r"^0::(/.*)$", _text_of(root / "proc/self/cgroup"), re.MULTILINE)
    legacy = re.search(
        r"^\d+:(?:[^:]*,)?cpu(?:,[^:]*)?:(/.*)$", _text_of(root / "proc/self/cgroup"), re.MULTILINE
    )
    mounted = root / "sys/fs/cgroup"
    places = [mounted / hierarchy[1].strip("/")] if hierarchy else []
    places.append(mounted)
    for name in ("cpu", "cpu,cpuacct"):
        places += [mounted / name / legacy[1].strip("/")] if legacy else []
        places.append(mounted / name)
    for place in places:
        counted = re.search(r"^nr_throttled (\d+)$", _text_of(place / "cpu.stat"), re.MULTILINE)
        if counted:
            return int(counted[1])
    return None


def _battery_w(root: Path) -> float | None:
    """Power of the batteries that are being emptied; in micro-units, and currents have either sign."""
    watts = []
    for supply in sorted((root / _SUPPLY).glob("*")):
        if _text(supply / "type") != "Battery" or _text(supply / "status") != "Discharging":
            continue
        power = _number(supply / "power_now")
        current, voltage = _number(supply / "current_now"), _number(supply / "voltage_now")
        if power is not None:
            watts.append(abs(power) / 1e6)
        elif current is not None and voltage is not None:
            watts.append(abs(current) * voltage / 1e12)
    return sum(watts) if watts else None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _text(path: Path) -> str:
    return _text_of(path).strip()


def _text_of(path: Path) -> str:
    """What a file holds; nothing where it is missing, may not be read, or its driver refuses."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
