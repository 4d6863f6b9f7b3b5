"""Fixtures that tests of every package share."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from edgedet.bundle import MANIFEST, Artifact, Bundle, FileEntry, open_bundle
from edgedet.data import Dataset, open_dataset

ROOT = Path(__file__).resolve().parents[1]


# Bundles that take minutes to make. All but the first are begun late, when that one is there.
_COSTLY = ("full_bundle", "tflite_bundle", "batched_bundle", "batched_tflite_bundle", "bccd_bundle")


@pytest.hookimpl(wrapper=True)  # before pytest-xdist's own, which is to see the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Keep two processes from waiting for each other: files whose tests share a costly bundle go to one of
    them, other files as a whole to either, the longest first and those that can be divided last."""
    _group_and_order(items)
    yield


def _group_and_order(items: list[pytest.Item]) -> None:
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    places = {}
    for file, tests in files.items():
        cost, longest = max(map(_cost, tests)), max(map(_timeout, tests))
        for item in tests:
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(_COSTLY[cost] if cost >= 0 else file))
        divisible = len(set(map(_group, tests))) > 1
        places[file] = divisible, cost > 0, cost < 0, -longest, cost
    items[:] = [item for file in sorted(files, key=places.__getitem__) for item in files[file]]


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else ""


def _cost(item: pytest.Item) -> int:
    """Place in `_COSTLY` of what a test asks for, itself or by a parameter's name; -1 for nothing of it."""
    asked = {*getattr(item, "fixturenames", ())}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        asked |= {value for value in item.callspec.params.values() if isinstance(value, str)}
    return max((place for place, name in enumerate(_COSTLY) if name in asked), default=-1)


def _timeout(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


# Ten seconds without a line look like a hang.
_SILENCE_S = 9.0


def pytest_configure(config: pytest.Config) -> None:
    """Say what is running where that takes long: by xdist's controller, whose output nothing captures."""
    if config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(_Heartbeat(config), "heartbeat")


class _Heartbeat:
    """Prints a line where no test has ended, and so no dot has been printed, for some seconds."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._session: pytest.Session | None = None
        self._running: dict[str, float] = {}
        self._finished = 0
        self._began = self._printed = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._printed = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._finished += 1

    def pytest_sessionfinish(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_SILENCE_S / 10):
            if time.monotonic() - self._printed >= _SILENCE_S:
                self._printed = time.monotonic()
                reporter = self._config.pluginmanager.get_plugin("terminalreporter")
                if reporter is not None:
                    reporter.write(f"\n{self._line()}\n", flush=True)

    def _line(self) -> str:
        now, total = time.monotonic(), self._session.testscollected if self._session else 0
        running = [f"{name} ({now - began:.0f} s)" for name, began in tuple(self._running.items())]
        where = f"{self._finished} of {total} tests; running: {', '.join(running)}" if total else "collecting"
        return f"[{now - self._began:.0f} s] {where}"


@pytest.fixture(autouse=True)
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where benchmarks keep their results in tests, which is never the user's own history."""
    path = tmp_path / "history" / "history.sqlite"
    monkeypatch.setenv("EDGEDET_HISTORY", str(path))
    return path


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands export in one process: tests run in two already."""
    monkeypatch.setenv("EDGEDET_PROCESSES", "1")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real data sets, which is never part of the repository."""
    root = os.environ.get("EDGEDET_TEST_DATA", "")
    if not root:
        pytest.skip("EDGEDET_TEST_DATA is not set: it names the folder that holds data/bccd and others")
    path = Path(root)
    if not (path / "data").is_dir():
        pytest.fail(f"EDGEDET_TEST_DATA is {root!r}, which has no folder `data`")
    return path


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one test run share: what is expensive is made there once."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def trained() -> Path:
    """The committed detector of the built-in shapes: real weights, 256x256 pixels."""
    return ROOT / "weights" / "shapes_ssdlite256_mobilenetv2.safetensors"


@pytest.fixture(scope="session")
def checkpoint(shared_folder: Path) -> Path:
    """A detector of the built-in classes for 96x96 pixels, with fresh weights: small, and quick to export."""
    from edgedet.data.synthetic import LABELS
    from edgedet.models import build_detector, save_checkpoint
    from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
    from edgedet.spec import InputSpec

    path = shared_folder / "small.safetensors"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            import torch

            torch.manual_seed(0)
            config = DetectorConfig(
                name="small",
                labels=LABELS,
                input=InputSpec(size_hw=(96, 96)),
                backbone=BackboneConfig(name="mobilenetv2_035"),
                head=SsdLiteConfig(extra_channels=(32, 32), scales=(0.2, 0.4, 0.6, 0.8, 1.0)),
                score_threshold=0.1,
            )
            save_checkpoint(path, build_detector(config))
    return path


def _made_once(
    path: Path,
    checkpoint: Path,
    targets: str,
    precisions: str,
    images: Dataset | None = None,
    count: int = 6,
    batches: tuple[int, ...] = (1,),
    calibrated: Path | None = None,
) -> Path:
    """A bundle that the first process to come here exports, calibrated on so many images or as another is."""
    from edgedet_calibration.recipe import Recipe
    from edgedet_calibration.stats import Stats
    from edgedet_export.exporter import ExportRequest, export_bundle

    with FileLock(f"{path}.lock"):
        if not path.exists():
            export_bundle(
                ExportRequest(
                    checkpoint,
                    path,
                    tuple(targets.split()),
                    tuple(precisions.split()),
                    calibration=images if calibrated is None else None,
                    stats=None if calibrated is None else Stats.from_json(calibrated.read_bytes(), source=""),
                    recipe=Recipe(images=count),
                    batches=batches,
                )
            )
    return path


@pytest.fixture(scope="session")
def bundle(shared_folder: Path, checkpoint: Path) -> Path:
    """A bundle of that detector for ONNX Runtime and OpenVINO, to be read and never written."""
    return _made_once(shared_folder / "small", checkpoint, "onnx openvino", "fp32")


@pytest.fixture(scope="session")
def full_bundle(shared_folder: Path, trained: Path) -> Bundle:
    """Every target in what all of them make, of the detector of the built-in shapes, to be read and never
    written."""
    pytest.importorskip("litert_torch", reason="the export extra is not installed")
    images = open_dataset("builtin", split="val")
    targets = "onnx openvino tflite tensorrt tensorrt-rtx"
    return open_bundle(_made_once(shared_folder / "full", trained, targets, "fp32 fp16 int8", images))


@pytest.fixture(scope="session")
def tflite_bundle(shared_folder: Path, trained: Path) -> Bundle:
    """What TFLite alone makes, of the same detector, to be read and never written."""
    pytest.importorskip("litert_torch", reason="the export extra is not installed")
    images = open_dataset("builtin", split="val")
    return open_bundle(
        _made_once(shared_folder / "tflite", trained, "tflite", "int8-a16 int8-dynamic", images)
    )


@pytest.fixture(scope="session")
def batched_bundle(shared_folder: Path, trained: Path, full_bundle: Bundle) -> Bundle:
    """ONNX and OpenVINO in fp32 and int8 for one and for two images at once, of the same detector, to be read
    and never written."""
    path, calibrated = shared_folder / "batched", full_bundle.root / "calibration.json"
    batches = (1, 2)
    made = _made_once(path, trained, "onnx openvino", "fp32 int8", batches=batches, calibrated=calibrated)
    return open_bundle(made)


@pytest.fixture(scope="session")
def batched_tflite_bundle(shared_folder: Path, trained: Path, full_bundle: Bundle) -> Bundle:
    """TFLite likewise, which takes long to convert: for slow tests."""
    path, calibrated = shared_folder / "batched_tflite", full_bundle.root / "calibration.json"
    made = _made_once(path, trained, "tflite", "fp32 int8", batches=(1, 2), calibrated=calibrated)
    return open_bundle(made)


@pytest.fixture(scope="session")
def bccd_fp32_bundle(shared_folder: Path) -> Bundle:
    """ONNX in fp32 of the committed blood-cell detector, to be read and never written."""
    checkpoint = ROOT / "weights" / "bccd_ssdlite320_mobilenetv2.safetensors"
    return open_bundle(_made_once(shared_folder / "bccd_fp32", checkpoint, "onnx", "fp32"))


@pytest.fixture(scope="session")
def bccd_bundle(shared_folder: Path, test_data: Path) -> Bundle:
    """The CPU targets in fp32 and int8 of the committed blood-cell detector, to be read and never written."""
    pytest.importorskip("litert_torch", reason="the export extra is not installed")
    checkpoint = ROOT / "weights" / "bccd_ssdlite320_mobilenetv2.safetensors"
    images = open_dataset(test_data / "data" / "bccd", split="train+val")
    return open_bundle(
        _made_once(shared_folder / "bccd", checkpoint, "onnx openvino tflite", "fp32 int8", images, count=96)
    )


@pytest.fixture
def int8_layer() -> Callable[[Path, int, int], None]:
    """Writes an .onnx file of one convolution in INT8, "the layer", which has a pair of these two weights."""
    onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
    import numpy as np

    def write(path: Path, first: int, second: int) -> None:
        weight = np.zeros((4, 4, 3, 3), np.int8)
        weight[2, :2, 1, 1] = first, second
        constants = {"s": np.float32(0.1), "z": np.uint8(0), "w": weight, "sw": np.float32(0.1)}
        nodes = [
            onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            onnx.helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            onnx.helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"]),
            onnx.helper.make_node("Conv", ["xd", "wd"], ["y"], name="the layer"),
        ]
        tensors = [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
        path.parent.mkdir(exist_ok=True)
        x, y = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, side, side])
            for name, side in (("x", 8), ("y", 6))
        )
        graph = onnx.helper.make_graph(nodes, "g", [x], [y], tensors)
        opset = onnx.helper.make_opsetid("", 17)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)

    return write


@pytest.fixture
def int8_bundle(bundle: Path, tmp_path: Path, int8_layer: Callable[[Path, int, int], None]) -> Bundle:
    """A copy of the small bundle to be changed, with one more artifact: an INT8 layer that can overflow."""
    from edgedet.spec import QuantizationSpec

    root = Path(shutil.copytree(bundle, tmp_path / "int8 bundle"))
    path = root / "int8" / "model.onnx"
    int8_layer(path, 100, 29)
    how = QuantizationSpec(encoding="onnxruntime", observer="minmax", calibration_sha256="")
    files = (FileEntry.of(root, path),)
    artifact = Artifact(target="onnx", precision="int8", runtime="ort", files=files, quantization=how)
    manifest = open_bundle(root).manifest
    manifest = manifest.model_copy(update={"artifacts": (*manifest.artifacts, artifact)})
    (root / MANIFEST).write_text(manifest.model_dump_json())
    return open_bundle(root)
