"""What engines for RTX GPUs cost on this machine: seconds of the processor, and megabytes.

    python benchmarks/rtx_engines.py BUNDLE...

takes the strongly typed ONNX of bundles that were exported with `--to tensorrt` or `tensorrt-rtx`, judges
it as an export does, and builds it. Seconds are of the processor, the least of three times, because other
programs change the time on the clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgedet.bundle import Artifact, Bundle, open_bundle
from edgedet_export.trt_engine import TENSORRT_RTX, build_engine
from edgedet_export.typed_onnx import judge

_TIMES = 3


def main() -> None:
    """Print a line for each precision of each bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--compute-capability", metavar="X.Y")
    options = parser.parse_args()
    print(f"{'detector':34} {'precision':9} {'judge s':>8} {'build s':>8} {'ONNX MB':>8} {'engine MB':>9}")
    for path in options.bundles:
        bundle = open_bundle(path)
        typed = {a.precision: a for a in bundle.of_batch(1) if a.target in ("tensorrt", "tensorrt-rtx")}
        for artifact in typed.values():
            _measure(bundle, artifact, options.compute_capability)


def _measure(bundle: Bundle, artifact: Artifact, compute_capability: str | None) -> None:
    onnx = next(bundle.check(entry) for entry in artifact.files if entry.path.endswith(".onnx"))
    spec = bundle.spec_of(artifact)
    with tempfile.TemporaryDirectory(prefix="edgedet-") as folder:
        engine = Path(folder) / "model.rtx"
        judged = _least(lambda: judge(onnx, spec))
        built = _least(lambda: build_engine(onnx, engine, spec, TENSORRT_RTX, compute_capability))
        sizes = (onnx.stat().st_size / 1e6, engine.stat().st_size / 1e6)
    print(
        f"{spec.name:34} {spec.precision:9} {judged:8.2f} {built:8.2f} {sizes[0]:8.2f} {sizes[1]:9.2f}",
        flush=True,
    )


def _least(work: Callable[[], object]) -> float:
    """Seconds of the processor that work takes, the least of some times."""
    seconds = []
    for _ in range(_TIMES):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
