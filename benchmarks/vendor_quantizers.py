"""INT8 of edgedet beside that of the vendors' own quantizers: same detector, same images, same run.

    pip install -e ".[vendors]"
    python benchmarks/vendor_quantizers.py BUNDLE --data DIR --split test --calibration DIR

BUNDLE holds fp32 and int8 of every runtime; the vendors quantize its fp32 artifacts with the images that its
INT8 was calibrated on, at the defaults of their tools. `--accuracy-aware` adds NNCF's
`quantize_with_accuracy_control`, which may lose 1 % of the float mAP on `--data`; it can take an hour.
`--views 4` judges on the mirror images of every test image as well, and `--views 16` on those shifted by one
to three pixels too: rounding falls differently on each, and chance has a smaller share in the mAP. `- ours`
is how far a mAP is from that of edgedet's INT8, in points, with its standard error: a jackknife over blocks
of test images, each with all its views. `x86` says whether the sums of an artifact are exact on every x86
processor, from its weights. All take turns on one thread, input tensor to raw outputs; a speed-up and the
latency beside edgedet's are medians over the turns.

`--keep DIR` keeps what the vendors' tools made, and takes what is there already. With it and `--untimed` the
same files are judged on an emulated processor, where times mean nothing and nothing needs PyTorch:

    qemu-x86_64-static -cpu Haswell-noTSX PYTHON benchmarks/vendor_quantizers.py ... --keep DIR --untimed
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.bundle import Bundle, companions, open_bundle
from edgedet.data import Dataset, LabelledImage, open_dataset
from edgedet.decode import decode
from edgedet.embedded import RT_INFO_WEIGHTS
from edgedet.errors import EdgedetError
from edgedet.evaluate import MAX_DETECTIONS, evaluation_spec, shared_classes, with_detector_classes
from edgedet.evaluate.accuracy import EvaluatedImage
from edgedet.evaluate.coco import coco_precision
from edgedet.parity.compare import OutputComparison
from edgedet.pipeline import RuntimeLike
from edgedet.preprocess import Geometry, preprocess
from edgedet.processor import read_processor
from edgedet.proof import prove
from edgedet.spec import DetectorSpec

_ROUNDS, _TURN_S = 15, 0.5
_BLOCKS = 12

Feeds = dict[str, Floats]
Run = Callable[[Feeds], Feeds]


@dataclass(frozen=True, slots=True)
class Task:
    """What a vendor's quantizer is given.

    Attributes:
        model: The fp32 artifact.
        calibration: Gives calibration images as they enter it.
        folder: Where to write.
        map_of: COCO's mAP on the test images of whatever computes raw outputs.
    """

    model: Path
    calibration: Callable[[], Sequence[Feeds]]
    folder: Path
    map_of: Callable[[Run], float]

    @property
    def feeds(self) -> Sequence[Feeds]:
        """Calibration images as they enter the model."""
        return self.calibration()


Quantizer = Callable[[Task], Path]


def onnxruntime_static(task: Task) -> Path:
    """ONNX Runtime's `quantize_static`: Q/DQ, uint8 activations, int8 weights per channel."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(task.feeds)

        def get_next(self) -> Feeds | None:
            return next(self._feeds, None)

    prepared, path = task.folder / "prepared.onnx", task.folder / "quantize_static.onnx"
    quant_pre_process(str(task.model), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return path


def nncf_quantize(task: Task) -> Path:
    """NNCF's post-training quantization with fast bias correction, its default."""
    return _nncf(task, "nncf", fast_bias_correction=True)


def nncf_full_bias_correction(task: Task) -> Path:
    """The same with the bias correction that takes minutes."""
    return _nncf(task, "nncf_full", fast_bias_correction=False)


def _nncf(task: Task, name: str, *, fast_bias_correction: bool) -> Path:
    import nncf
    import openvino

    quantized = nncf.quantize(
        openvino.Core().read_model(task.model),
        nncf.Dataset(list(task.feeds)),
        subset_size=len(task.feeds),
        fast_bias_correction=fast_bias_correction,
    )
    return _saved(quantized, task.folder / f"{name}.xml")


def nncf_accuracy_aware(task: Task) -> Path:
    """NNCF's search for the layers to leave in float, until 99 % of the float mAP is kept."""
    import nncf
    import openvino

    def validate(model: Any, _: object) -> tuple[float, None]:
        names = [output.get_any_name() for output in model.outputs]
        return task.map_of(lambda feeds: dict(zip(names, model(feeds).values(), strict=True))), None

    quantized = nncf.quantize_with_accuracy_control(
        openvino.Core().read_model(task.model),
        nncf.Dataset(list(task.feeds)),
        nncf.Dataset([0]),  # `validate` brings its own images
        validate,
        max_drop=0.01,
        drop_type=nncf.DropType.RELATIVE,
        subset_size=len(task.feeds),
    )
    return _saved(quantized, task.folder / "nncf_accuracy_aware.xml")


def _saved(model: Any, path: Path) -> Path:
    import openvino

    model.set_rt_info("", list(RT_INFO_WEIGHTS))  # of the float weights that it was made from
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def ai_edge_static(task: Task) -> Path:
    """ai-edge-quantizer's static recipe: int8 activations and weights."""
    from ai_edge_quantizer import quantizer, recipe

    path = task.folder / "ai_edge_quantizer.tflite"
    job = quantizer.Quantizer(str(task.model), recipe.static_wi8_ai8())
    feeds = [{n: np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for n, x in one.items()} for one in task.feeds]
    found = job.calibrate(dict.fromkeys(_signatures(task.model), feeds))
    job.quantize(found).export_model(str(path), overwrite=True)
    return path


def _signatures(model: Path) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    return list(Interpreter(str(model)).get_signature_list())


# What each of them writes.
FILES = {
    "quantize_static": "quantize_static.onnx",
    "NNCF": "nncf.xml",
    "NNCF, full bias correction": "nncf_full.xml",
    "NNCF, accuracy-aware": "nncf_accuracy_aware.xml",
    "ai-edge-quantizer": "ai_edge_quantizer.tflite",
}

VENDORS: dict[str, dict[str, Quantizer]] = {
    "ort": {"quantize_static": onnxruntime_static},
    "openvino": {"NNCF": nncf_quantize, "NNCF, full bias correction": nncf_full_bias_correction},
    "tflite": {"ai-edge-quantizer": ai_edge_static},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One artifact.

    Attributes:
        runtime: What runs it.
        quantizer: What made it; "float" for fp32.
        map: COCO's mAP, 0 to 1.
        map_minus_edgedet: How far that is from the mAP of edgedet's INT8 on the same runtime.
        map_minus_edgedet_error: Standard error of that, over the choice of test images.
        output_snr_db: Raw outputs against those of fp32 on the same runtime, the worst output.
        exact: Whether its sums are exact on every x86 processor; None for float.
        p50_ms: Median inference; with `--untimed`, None as the next two.
        speedup_vs_fp32: Median over turns of the time of fp32 over its own.
        latency_vs_edgedet: Median over turns of its time over that of edgedet's INT8.
        bytes: Size of its files.
    """

    runtime: str
    quantizer: str
    map: float
    map_minus_edgedet: float
    map_minus_edgedet_error: float
    output_snr_db: float
    exact: bool | None
    p50_ms: float | None
    speedup_vs_fp32: float | None
    latency_vs_edgedet: float | None
    bytes: int


@dataclass(slots=True)
class Contender:
    """An opened artifact and what is measured of it."""

    runtime: str
    quantizer: str
    opened: RuntimeLike
    bytes: int
    exact: bool | None
    comparison: OutputComparison
    judged: list[tuple[str, EvaluatedImage]] = field(default_factory=list)
    turns_ms: list[float] = field(default_factory=list)


def open_contenders(
    bundle: Bundle,
    vendors: dict[str, dict[str, Quantizer]],
    calibration: Callable[[], Sequence[Feeds]],
    map_of: Callable[[Run], float],
    keep: Path | None,
    stack: ExitStack,
) -> Iterator[Contender]:
    """fp32, INT8 of edgedet and INT8 of the vendors, for every runtime."""
    spec, folder = bundle.spec, keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
    folder.mkdir(parents=True, exist_ok=True)
    for runtime, quantizers in vendors.items():
        float_path = bundle.path_of(bundle.artifact(runtime, "fp32"))
        paths = {"float": float_path, "edgedet": bundle.path_of(bundle.artifact(runtime, "int8"))}
        for name, quantize in quantizers.items():
            began, path = time.perf_counter(), folder / FILES[name]
            if path.is_file():
                print(f"{runtime}: {name} is there already: {path}", flush=True)
            else:
                quantize(Task(float_path, calibration, folder, map_of))
                print(f"{runtime}: {name} quantized in {time.perf_counter() - began:.0f} s", flush=True)
            paths[name] = path
        for name, path in paths.items():
            try:
                opened = registry.RUNTIMES.load(runtime)(path, spec=spec, threads=1)
            except EdgedetError as exc:
                if name in ("float", "edgedet"):
                    raise
                print(f"{runtime}: what {name} made does not run: {exc}", flush=True)
                continue
            stack.callback(opened.close)
            size = sum(file.stat().st_size for file in (path, *companions(path)) if file.is_file())
            names = [output.name for output in spec.outputs]
            proof = None if name == "float" else prove(runtime, path)
            exact = None if name == "float" else proof is None or proof.is_exact
            yield Contender(runtime, name, opened, size, exact, OutputComparison(names))


def views(image: LabelledImage, count: int) -> Iterator[LabelledImage]:
    """An image as it is, left to right, top to bottom and both; then the same a pixel further, and so on.

    What is shifted in repeats the border; boxes end at the image.
    """
    height, width = image.image_bgr.shape[:2]
    for number in range(count):
        shift, mirror = divmod(number, 4)
        x1, y1, x2, y2 = image.boxes_xyxy.T
        if mirror & 1:
            x1, x2 = width - x2, width - x1
        if mirror & 2:
            y1, y2 = height - y2, height - y1
        pixels = image.image_bgr[:: -1 if mirror & 2 else 1, :: -1 if mirror & 1 else 1]
        pixels = cv2.copyMakeBorder(pixels, shift, 0, shift, 0, cv2.BORDER_REPLICATE)[:height, :width]
        boxes = np.stack([x1, y1, x2, y2], axis=1) + np.float32(shift)
        yield replace(
            image,
            image_bgr=np.ascontiguousarray(pixels),
            boxes_xyxy=np.minimum(boxes, np.float32([width, height, width, height])),
        )


@dataclass(slots=True)
class TestImages:
    """Labelled images as they enter a detector, each decoded and preprocessed once."""

    spec: DetectorSpec
    images: list[tuple[LabelledImage, Geometry, Floats]]

    @staticmethod
    def of(bundle: Bundle, data: Dataset, count: int) -> TestImages:
        """So many views of each image of a data set."""
        spec = evaluation_spec(bundle.spec)
        mapping = shared_classes(data.labels, spec.labels)
        images = []
        for original in data:
            for image in views(original, count):
                tensor, geometry = preprocess(image.image_bgr, spec.input)
                images.append((with_detector_classes(image, mapping), geometry, tensor))
        return TestImages(spec, images)

    def map_of(self, run: Run) -> float:
        """COCO's mAP, 0 to 1."""
        return map_of(
            [
                self._judged(labelled, geometry, run({self.spec.input.name: tensor}))
                for labelled, geometry, tensor in self.images
            ],
            self.spec.labels,
        )

    def judge(self, contenders: Sequence[Contender]) -> None:
        """Run every image through every contender."""
        for labelled, geometry, tensor in self.images:
            reference: dict[str, Feeds] = {}
            for one in contenders:
                outputs = one.opened.run({self.spec.input.name: tensor})
                one.comparison.add(reference.setdefault(one.runtime, outputs), outputs)
                one.judged.append((labelled.image_id, self._judged(labelled, geometry, outputs)))

    def _judged(self, image: LabelledImage, geometry: Geometry, outputs: Feeds) -> EvaluatedImage:
        found = decode(outputs, self.spec, geometry, limit=MAX_DETECTIONS)
        return EvaluatedImage(geometry.image_hw, image.boxes_xyxy, image.class_ids, image.ignore, found)


def map_of(images: Sequence[EvaluatedImage], labels: Sequence[str]) -> float:
    """COCO's mAP, 0 to 1."""
    return coco_precision(images, labels).map() or 0.0


def jackknife(one: Contender, labels: Sequence[str]) -> Floats:
    """COCO's mAP over all test images, then without each block of them in turn, `[1 + blocks]`.

    The views of an image are in one block.
    """
    names = list(dict.fromkeys(name for name, _ in one.judged))
    blocks: list[list[str]] = [[], *(names[number::_BLOCKS] for number in range(min(_BLOCKS, len(names))))]
    return np.array(
        [
            map_of([judged for name, judged in one.judged if name not in left_out], labels)
            for left_out in blocks
        ],
        np.float64,
    )


def take_turns(contenders: Sequence[Contender], feeds: Feeds) -> None:
    """Median times of one turn after another, each round in another order."""
    for number in range(_ROUNDS + 1):
        for offset in range(len(contenders)):
            one = contenders[(offset + number) % len(contenders)]
            times, end = [], time.perf_counter() + _TURN_S
            while time.perf_counter() < end:
                began = time.perf_counter()
                one.opened.run(feeds)
                times.append(1000 * (time.perf_counter() - began))
            if number:  # the first round warms up
                one.turns_ms.append(float(np.median(times)))


def rows_of(contenders: Sequence[Contender], labels: Sequence[str]) -> Iterator[Row]:
    """What was measured, one row a contender."""
    floats, ours = (
        {one.runtime: one for one in contenders if one.quantizer == name} for name in ("float", "edgedet")
    )
    accuracy = {id(one): jackknife(one, labels) for one in contenders}
    for one in contenders:
        turns = np.array(one.turns_ms)
        whole, *without = accuracy[id(one)] - accuracy[id(ours[one.runtime])]
        yield Row(
            runtime=one.runtime,
            quantizer=one.quantizer,
            map=float(accuracy[id(one)][0]),
            map_minus_edgedet=float(whole),
            map_minus_edgedet_error=float(np.sqrt((len(without) - 1) * np.var(without))),
            output_snr_db=min(output.snr_db for output in one.comparison.differences()),
            exact=one.exact,
            p50_ms=_median(turns),
            speedup_vs_fp32=_median(np.array(floats[one.runtime].turns_ms) / turns),
            latency_vs_edgedet=_median(turns / np.array(ours[one.runtime].turns_ms)),
            bytes=one.bytes,
        )


def _median(values: Floats) -> float | None:
    return float(np.median(values)) if len(values) else None


def calibration_feeds(bundle: Bundle, data: str, split: str | None) -> list[Feeds]:
    """The images that the bundle's INT8 was calibrated on.

    Raises:
        SystemExit: The data set gives others.
    """
    from edgedet_calibration.images import calibration_images
    from edgedet_calibration.stats import Stats

    path, spec = bundle.root / "calibration.json", bundle.spec.input
    stats = Stats.from_json(path.read_bytes(), source=str(path))
    images = list(calibration_images(open_dataset(data, split), len(stats.images)))
    if [image.image_id for image in images] != [entry.image_id for entry in stats.images]:
        raise SystemExit(
            f"--calibration gives other images ({images[0].image_id}, …) than BUNDLE was calibrated on "
            f"({stats.images[0].image_id}, …); give the folder and --calibration-split that its export was "
            "given as --calibration and --split"
        )
    return [{spec.name: preprocess(image.image_bgr, spec)[0]} for image in images]


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    columns = "".join(f"{name:>8}" for name in ("SNR dB", "x86", "p50 ms", "x fp32", "/ ours", "MB"))
    print(f"{'runtime':10}{'quantizer':28}{'mAP':>8}{'- ours':>14}{columns}")
    for row in rows:
        apart = f"{100 * row.map_minus_edgedet:+.2f} ± {100 * row.map_minus_edgedet_error:.2f}"
        x86 = {None: "", True: "exact", False: "no"}[row.exact]
        times = (row.p50_ms, row.speedup_vs_fp32, row.latency_vs_edgedet)
        shown = "".join(f"{'' if one is None else f'{one:.2f}':>8}" for one in times)
        print(
            f"{row.runtime:10}{row.quantizer:28}{100 * row.map:8.2f}{apart:>14}"
            f"{row.output_snr_db:8.1f}{x86:>8}{shown}{row.bytes / 1e6:8.2f}"
        )


def main() -> None:
    """Quantize, judge, time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--calibration-split")
    parser.add_argument("--runtimes", default=",".join(VENDORS))
    parser.add_argument("--accuracy-aware", action="store_true")
    parser.add_argument("--views", type=int, choices=(1, 4, 16), default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    vendors = {runtime: VENDORS[runtime] for runtime in given.runtimes.split(",")}
    if given.accuracy_aware and "openvino" in vendors:
        vendors["openvino"] = vendors["openvino"] | {"NNCF, accuracy-aware": nncf_accuracy_aware}
    processor = read_processor().summary
    print(processor, flush=True)
    bundle = open_bundle(given.bundle)
    calibration = cache(partial(calibration_feeds, bundle, given.calibration, given.calibration_split))
    with ExitStack() as stack:
        tests = TestImages.of(bundle, open_dataset(given.data, given.split), given.views)
        contenders = list(open_contenders(bundle, vendors, calibration, tests.map_of, given.keep, stack))
        tests.judge(contenders)
        if not given.untimed:
            take_turns(contenders, {bundle.spec.input.name: tests.images[0][2]})
        rows = list(rows_of(contenders, bundle.spec.labels))
    show(rows)
    if given.json:
        values = {"processor": processor, "views": given.views, "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
