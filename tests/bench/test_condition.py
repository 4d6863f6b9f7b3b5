"""What is read of a machine, on made-up trees of /sys and /proc: what is not there is None."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgedet.bench.condition import Condition, EnergyCounters, joules_between, read_condition, read_energy
from edgedet.bench.workers import Order, Worker

CPU = "sys/devices/system/cpu"
RAPL = "sys/class/powercap"
BATTERY = "sys/class/power_supply/BAT0"


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_that_tells_nothing_gives_nothing(tmp_path: Path):
    assert read_condition(tmp_path) == Condition()
    assert read_energy(tmp_path) == EnergyCounters()
    assert joules_between(read_energy(tmp_path), read_energy(tmp_path), 1.0) == (None, "")


def test_clocks_are_those_of_all_cores_in_their_order(tmp_path: Path):
    clocks = {0: 3_000_000, 1: 2_000_000, 10: 1_000_000}
    make(tmp_path, {f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": f"{khz}\n" for core, khz in clocks.items()})
    make(tmp_path, {f"{CPU}/cpu{core}/cpufreq/scaling_governor": "powersave\n" for core in (0, 1)})
    make(tmp_path, {f"{CPU}/cpu10/cpufreq/scaling_governor": "performance\n", f"{CPU}/cpufreq/x": ""})
    found = read_condition(tmp_path)
    assert found.mhz == (3000, 2000, 1000)
    assert found.mean_mhz == 2000
    assert found.governors == ("performance", "powersave")


def test_the_temperature_is_the_hottest_of_those_that_can_be_true(tmp_path: Path):
    make(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "41000\n",
            "sys/class/thermal/thermal_zone1/temp": "-273000\n",
            "sys/class/hwmon/hwmon0/temp1_input": "73500\n",
            "sys/class/hwmon/hwmon0/temp2_input": "255000\n",
            "sys/class/hwmon/hwmon0/temp3_input": "not a number\n",
        },
    )
    assert read_condition(tmp_path).celsius == 73.5


def test_a_package_is_counted_once_and_each_core_by_itself(tmp_path: Path):
    for core, own, package, of_package in ((0, 2, 0, 5), (1, 3, 0, 5), (2, 0, 1, 7)):
        make(
            tmp_path,
            {
                f"{CPU}/cpu{core}/thermal_throttle/core_throttle_count": f"{own}\n",
                f"{CPU}/cpu{core}/thermal_throttle/package_throttle_count": f"{of_package}\n",
                f"{CPU}/cpu{core}/topology/physical_package_id": f"{package}\n",
            },
        )
    assert read_condition(tmp_path).throttle_events == 5 + 5 + 7


@pytest.mark.parametrize(
    ("groups", "place"),
    [
        ("0::/user.slice/box\n", "user.slice/box"),
        ("0::/\n", ""),
        ("0::/of/the/host\n", ""),  # as in a container, whose own group is mounted as the root
        ("5:memory:/m\n4:cpu,cpuacct:/box\n0::/\n", "cpu,cpuacct/box"),
        ("4:cpu:/box\n", "cpu"),
    ],
)
def test_the_container_s_own_counter_is_found_in_both_versions_of_control_groups(tmp_path, groups, place):
    make(
        tmp_path,
        {
            "proc/self/cgroup": groups,
            f"sys/fs/cgroup/{place}/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_usec 100\n",
        },
    )
    assert read_condition(tmp_path).cgroup_throttled == 4


def package(number: int, energy_uj: int, highest: int = 262_143_328_850) -> dict[str, str]:
    zone = f"{RAPL}/intel-rapl:{number}"
    return {
        f"{zone}/name": f"package-{number}\n",
        f"{zone}/energy_uj": f"{energy_uj}\n",
        f"{zone}/max_energy_range_uj": f"{highest}\n",
    }


def test_energy_is_the_sum_of_packages_without_their_parts(tmp_path: Path):
    make(tmp_path, package(0, 1_000_000) | package(1, 5_000_000))
    others = {"intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
    for zone, name in others.items():
        make(tmp_path, {f"{RAPL}/{zone}/name": f"{name}\n", f"{RAPL}/{zone}/energy_uj": "7\n"})
        make(tmp_path, {f"{RAPL}/{zone}/max_energy_range_uj": "999999999\n"})
    before = read_energy(tmp_path)
    make(tmp_path, package(0, 3_500_000) | package(1, 5_250_000))
    make(tmp_path, {f"{RAPL}/{zone}/energy_uj": "9000000\n" for zone in others})
    assert joules_between(before, read_energy(tmp_path), 1.0) == (2.75, "rapl")


def test_a_counter_that_wrapped_around_goes_on(tmp_path: Path):
    before = read_energy(make(tmp_path, package(0, 900, highest=999)))
    after = read_energy(make(tmp_path, package(0, 99, highest=999)))
    assert joules_between(before, after, 1.0) == (pytest.approx(199e-6 + 0.0, abs=1e-12), "rapl")


def test_a_counter_that_may_not_be_read_is_left_out(tmp_path: Path, monkeypatch):
    make(tmp_path, package(0, 1))
    read = Path.read_text

    def refused(path: Path, *arguments, **options) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    assert read_energy(tmp_path) == EnergyCounters()


@pytest.mark.parametrize(
    "files",
    [
        {"power_now": "4000000\n"},
        {"current_now": "-500000\n", "voltage_now": "8000000\n"},
    ],
)
def test_the_power_of_a_battery_is_told_or_follows_from_current_and_voltage(tmp_path: Path, files):
    state = {"type": "Battery\n", "status": "Discharging\n"}
    make(tmp_path, {f"{BATTERY}/{name}": text for name, text in (state | files).items()})
    counters = read_energy(tmp_path)
    assert counters.battery_w == 4
    assert joules_between(counters, counters, 2.5) == (10, "battery")


def test_a_battery_that_is_charged_says_nothing_of_what_is_used(tmp_path: Path):
    files = {"type": "Battery\n", "status": "Charging\n", "power_now": "4000000\n"}
    make(tmp_path, {f"{BATTERY}/{name}": text for name, text in files.items()})
    assert read_energy(tmp_path).battery_w is None


def test_a_worker_reads_the_machine_behind_each_turn(bundle, tmp_path: Path):
    make(tmp_path, {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1500000\n"} | package(0, 10))
    np.savez(tmp_path / "images.npz", np.zeros((40, 40, 3), np.uint8))
    with Worker(Order(bundle.root, "ort", "fp32", 1, tmp_path / "images.npz", tmp_path)) as worker:
        assert worker.condition.mhz == (1500,)
        turn = worker.measure(0.01, 7)
    assert (turn.condition.mhz, turn.joules, turn.energy_source) == ((1500,), 0, "rapl")
    assert len(turn.times.detections) >= 7
    assert turn.seconds == pytest.approx(sum(turn.times.total_ms) / 1e3, rel=0.5)
