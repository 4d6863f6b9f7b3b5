"""What LiteRT's INT8 would cost on an x86 without VNNI, measured on one that has it.

    python benchmarks/litert_without_vnni.py BUNDLE

XNNPACK asks the processor once which kernels it may use. Here its answer is changed in memory before a file
is opened: `native` leaves it, `avx512` takes VNNI away, `avx2` all of AVX-512 too, and `avx2, products with
VNNI` spares the matrix products of INT8. Each is a process of its own, which runs fp32 and int8 in turns on
one thread; times are those of the processor, not of the clock on the wall. Clock rate and caches stay those
of this processor, and so the ratios are near those of an old one and not the same.

Needs Linux on x86-64, binutils' `nm`, and a LiteRT whose library has its symbol table, as 2.3.0 does.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from edgedet.bundle import open_bundle
from edgedet_runtimes.tflite import TfliteRuntime

_LIBRARY = "libpywrap_litert_common.so"
_FLAGS, _CONFIG, _PRODUCTS = "hardware_config", "xnn_init_hardware_config", "xnn_init_qs8_qc8w_gemm_config"

# Bits of XNNPACK's hardware flags on x86, as init_hardware_config sets them: up to AVX2 and to AVX-512.
_MASKS = {
    "native": ~0,
    "avx512": 0x7FF,
    "avx2": 0xFF,
    "avx2, products with VNNI": 0xFF,
}
_TURNS, _RUNS = 40, 3


def main() -> None:
    """Print milliseconds of both precisions and their ratio, one line for each set of kernels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--kernels", choices=tuple(_MASKS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kernels is not None:
        print(json.dumps(measure(arguments.bundle, arguments.kernels)))
        return
    for kernels in _MASKS:
        command = [sys.executable, __file__, str(arguments.bundle), "--kernels", kernels]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        fp32, int8 = json.loads(done.stdout)
        ratio = statistics.median(a / b for a, b in zip(fp32, int8, strict=True))
        times = f"fp32 {statistics.median(fp32):6.2f} ms  int8 {statistics.median(int8):6.2f} ms"
        print(f"{kernels:26} {times}  x fp32 {ratio:.2f}")


def measure(bundle: Path, kernels: str) -> tuple[list[float], list[float]]:
    """Milliseconds of an inference in each turn, fp32 and int8."""
    restrict(kernels)
    opened = open_bundle(bundle)
    paths = [opened.path_of(opened.artifact("tflite", precision)) for precision in ("fp32", "int8")]
    runtimes = [TfliteRuntime(path, threads=1) for path in paths]
    spec = runtimes[0].spec.input
    tensor = np.random.default_rng(0).normal(size=spec.tensor.shape).astype(np.float32)
    turns: tuple[list[float], list[float]] = ([], [])
    for turn in range(_TURNS + 1):
        for place in (0, 1) if turn % 2 else (1, 0):
            began = time.process_time()
            for _ in range(_RUNS):
                runtimes[place].run({spec.name: tensor})
            if turn:  # the first one warms up
                turns[place].append(1e3 * (time.process_time() - began) / _RUNS)
    return turns


def restrict(kernels: str) -> None:
    """Change what XNNPACK found of the processor; nothing may have been opened before."""
    base, path = next(
        (int(line.partition("-")[0], 16), line.split()[-1])
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(_LIBRARY)
    )
    listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    symbols = {
        words[2]: int(words[0], 16) for words in map(str.split, listed.splitlines()) if len(words) == 3
    }
    initialized = ctypes.CFUNCTYPE(ctypes.c_void_p)(base + symbols[_CONFIG])()
    assert initialized == base + symbols[_FLAGS], "not the library that was looked at"
    if kernels == "avx2, products with VNNI":
        ctypes.CFUNCTYPE(ctypes.c_void_p)(base + symbols[_PRODUCTS])()
    flags = ctypes.c_uint64.from_address(initialized + 8)
    flags.value &= _MASKS[kernels]


if __name__ == "__main__":
    main()
