"""What is read of a processor, and what follows for INT8."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedet.processor import Processor, processor_of_cpuinfo, processor_of_sysctl, read_processor

# What decides, of /proc/cpuinfo of these processors; numpy names what of it it found by CPUID.
HASWELL = "fpu sse4_1 sse4_2 ssse3 fma movbe popcnt avx f16c bmi1 avx2 bmi2 erms invpcid"
CASCADE_LAKE = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"
ICE_LAKE = f"{CASCADE_LAKE} avx512ifma avx512vbmi gfni vaes vpclmulqdq avx512_bitalg"
SAPPHIRE_RAPIDS = f"{ICE_LAKE} avx_vnni avx512_bf16 amx_bf16 amx_tile amx_int8"
ALDER_LAKE = f"{HASWELL} sha_ni gfni vaes vpclmulqdq avx_vnni hwp"
ZEN_3 = "fpu sse4_1 sse4_2 ssse3 fma movbe popcnt avx f16c bmi1 avx2 bmi2 vaes vpclmulqdq"
ZEN_4 = f"{ZEN_3} avx512f avx512dq avx512cd avx512bw avx512vl avx512_bf16 avx512_vnni"
SILVERMONT = "fpu sse4_1 sse4_2 ssse3 movbe popcnt"
CORTEX_A53 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
CORTEX_A76 = "fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
NEOVERSE_V1 = f"{CORTEX_A76} sve svei8mm svebf16 i8mm bf16"
APPLE_M1 = f"{CORTEX_A76} jscvt fcma sha3 sha512 asimdfhm dit uscat ilrcpc flagm ssbs sb"

NUMPY = {
    "avx2": "AVX2",
    "avx512bw": "AVX512BW",
    "avx512_vnni": "AVX512VNNI",
    "vaes": "VAES",
    "asimddp": "ASIMDDP",
}


def features(flags: str) -> dict[str, bool]:
    """What numpy finds in a process on a processor with these flags."""
    return {feature: flag in flags.split() for flag, feature in NUMPY.items()}


def cpuinfo(flags: str, machine: str = "x86_64") -> str:
    key = "flags\t\t" if machine == "x86_64" else "Features\t"
    core = f"model name\t: a processor\n{key}: {flags}\nbugs\t\t: spectre_v1\n\n"
    return "".join(f"processor\t: {number}\n{core}" for number in range(2))


def native(flags: str, machine: str = "x86_64") -> Processor:
    return processor_of_cpuinfo(machine, cpuinfo(flags, machine), features(flags))


def present(processor: Processor) -> set[str]:
    return {name for name, value in processor.model_dump().items() if value is True}


@pytest.mark.parametrize(
    ("flags", "found", "saturates"),
    [
        pytest.param(SILVERMONT, set(), True, id="Silvermont"),
        pytest.param(HASWELL, {"avx2"}, True, id="Haswell"),
        pytest.param(ZEN_3, {"avx2"}, True, id="Zen 3"),
        pytest.param(ZEN_4, {"avx2", "avx512", "avx512_vnni"}, False, id="Zen 4"),
        pytest.param(CASCADE_LAKE, {"avx2", "avx512", "avx512_vnni"}, False, id="Cascade Lake"),
        pytest.param(ICE_LAKE, {"avx2", "avx512", "avx512_vnni"}, False, id="Ice Lake"),
        pytest.param(ALDER_LAKE, {"avx2", "avx_vnni"}, False, id="Alder Lake"),
        pytest.param(
            SAPPHIRE_RAPIDS,
            {"avx2", "avx512", "avx512_vnni", "avx_vnni", "amx_int8"},
            False,
            id="Sapphire Rapids",
        ),
    ],
)
def test_an_x86_saturates_unless_it_has_one_of_both_vnni(
    flags: str, found: set[str], saturates: bool
) -> None:
    processor = native(flags)
    assert present(processor) == found
    assert processor.saturates is saturates
    assert "unknown" not in processor.summary
    assert ("saturate" in processor.exactness and "ONNX Runtime" in processor.exactness) is saturates
    assert ("without VNNI" in processor.speed) is saturates


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        pytest.param(CORTEX_A53, set(), id="Cortex-A53"),
        pytest.param(CORTEX_A76, {"dotprod"}, id="Cortex-A76"),
        pytest.param(NEOVERSE_V1, {"dotprod", "i8mm"}, id="Neoverse V1"),
        pytest.param(APPLE_M1, {"dotprod"}, id="Apple M1 with Linux"),
    ],
)
def test_no_arm_saturates_and_dotprod_decides_its_speed(flags: str, found: set[str]) -> None:
    processor = native(flags, "aarch64")
    assert present(processor) == found
    assert processor.saturates is False
    assert "no sum" in processor.exactness
    assert ("without dotprod" in processor.speed) is ("dotprod" not in found)
    assert "not measured" in processor.speed


@pytest.mark.parametrize("host", [ZEN_4, ALDER_LAKE, SAPPHIRE_RAPIDS])
def test_an_emulated_processor_has_nothing_that_the_host_alone_names(host: str) -> None:
    processor = processor_of_cpuinfo("x86_64", cpuinfo(host), features(HASWELL))
    assert present(processor) == {"avx2"}
    assert processor.saturates is True


def test_an_emulated_arm_on_an_x86_host_knows_what_numpy_asked_for() -> None:
    processor = processor_of_cpuinfo("aarch64", cpuinfo(ZEN_4), features(CORTEX_A76))
    assert (processor.dotprod, processor.i8mm) == (True, None)
    assert processor.summary == "aarch64: dotprod; unknown: i8mm"


def test_cores_that_differ_have_what_all_of_them_have() -> None:
    text = cpuinfo(CORTEX_A76, "aarch64") + cpuinfo(CORTEX_A53, "aarch64")
    assert processor_of_cpuinfo("aarch64", text, {}).dotprod is False


@pytest.mark.parametrize(("flags", "saturates"), [(ZEN_4, False), (ALDER_LAKE, None), (HASWELL, None)])
def test_windows_does_not_tell_of_avx_vnni_and_so_may_not_of_saturation(
    flags: str, saturates: bool | None
) -> None:
    processor = processor_of_cpuinfo("AMD64", "", features(flags))
    assert processor.avx_vnni is None
    assert processor.saturates is saturates
    assert "unknown: AVX-VNNI, AMX" in processor.summary
    assert ("unknown" in processor.exactness) is (saturates is None)
    assert ("unknown" in processor.speed) is (saturates is None)


def test_where_nothing_can_be_read_all_is_unknown() -> None:
    processor = processor_of_cpuinfo("x86_64", "", {})
    assert processor.saturates is None
    assert processor.summary == "x86_64: unknown: AVX2, AVX-512, AVX-512 VNNI, AVX-VNNI, AMX"
    assert processor_of_cpuinfo("aarch64", "", {}).dotprod is None


def test_other_architectures_say_that_nothing_was_measured() -> None:
    processor = processor_of_cpuinfo("riscv64", "isa\t: rv64imafdc\n", {})
    assert present(processor) == set()
    assert "no instructions that edgedet looks for" in processor.summary
    assert "nothing was measured on riscv64" in processor.speed
    assert processor.saturates is None
    assert processor.exactness == "nothing is known of INT8 kernels on riscv64"


@pytest.mark.parametrize(
    ("machine", "text", "found", "saturates"),
    [
        pytest.param(
            "arm64",
            "hw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n",
            {"dotprod"},
            False,
            id="Apple M1",
        ),
        pytest.param(
            "x86_64",
            "hw.optional.avx2_0: 1\nhw.optional.avx512bw: 0\nhw.optional.avx512vnni: 0\n",
            {"avx2"},
            True,
            id="Mac with Coffee Lake",
        ),
        pytest.param("arm64", "", set(), False, id="no sysctl"),
        pytest.param("x86_64", "", set(), None, id="no sysctl of an Intel"),
    ],
)
def test_a_mac_tells_by_sysctl(machine: str, text: str, found: set[str], saturates: bool | None) -> None:
    processor = processor_of_sysctl(machine, text)
    assert present(processor) == found
    assert processor.saturates is saturates
    assert ("unknown" in processor.summary) is (text == "")


def test_numpy_is_not_believed_where_it_was_told_what_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_processor()
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "AVX512VNNI")
    monkeypatch.setattr("numpy._core._multiarray_umath.__cpu_features__", {"AVX2": False, "VAES": False})
    assert read_processor() == before


def test_it_goes_through_json() -> None:
    processor = native(ALDER_LAKE)
    assert Processor.model_validate_json(processor.model_dump_json()) == processor
    assert Processor(architecture="x86_64", avx2=None).summary.endswith("unknown: AVX2")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates x86-64 on itself")
def test_a_process_that_qemu_gives_a_haswell_says_avx2_only() -> None:
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("qemu-x86_64 is not installed (Debian: qemu-user-static)")
    program = "from edgedet.processor import read_processor; print(read_processor().model_dump_json())"
    root = Path(__file__).resolve().parents[2]
    command = [qemu, "-cpu", "Haswell-noTSX", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert present(Processor(**json.loads(done.stdout))) == {"avx2"}
