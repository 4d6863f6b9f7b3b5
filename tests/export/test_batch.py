"""Artifacts for several images at once: made from one calibration, and verified image by image."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgedet import registry
from edgedet.boxes import Floats
from edgedet.bundle import Artifact, Bundle, open_bundle
from edgedet.data import open_dataset
from edgedet.data.dataset import Dataset
from edgedet.errors import UsageError, VendorError, VerificationError
from edgedet.models.capture import set_batch
from edgedet_calibration.recipe import Recipe
from edgedet_export import verify
from edgedet_export.batch import with_batch
from edgedet_export.exporter import ExportRequest, export_bundle
from edgedet_export.sources import captured_checkpoint
from edgedet_export.target import Source


@pytest.fixture(scope="module")
def source(trained: Path) -> Source:
    """The float detector, for one image."""
    captured = captured_checkpoint(trained)
    return Source(captured.graph_module, captured.example_inputs, captured.spec)


@pytest.fixture(scope="module")
def tensors(source: Source) -> list[Floats]:
    """Input tensors of four images, no two of them alike."""
    return verify.verification_tensors(open_dataset("builtin", split="test"), source.spec.input)


def of_two(bundle: Bundle) -> list[Artifact]:
    return [artifact for artifact in bundle.manifest.artifacts if artifact.batch == 2]


def snr_db(expected: Floats, found: Floats) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum().clip(1e-30)))


@pytest.mark.parametrize(
    ("bundle", "count"),
    [("batched_bundle", 4), pytest.param("batched_tflite_bundle", 2, marks=pytest.mark.slow)],
)
def test_each_batch_lies_in_a_folder_of_its_own_and_knows_its_size_by_itself(
    request: pytest.FixtureRequest, bundle: str, count: int
) -> None:
    batched: Bundle = request.getfixturevalue(bundle)
    assert len(of_two(batched)) == count
    for artifact in of_two(batched):
        path = batched.path_of(artifact)
        assert path.parent == batched.root / artifact.precision / "batch2"
        with registry.RUNTIMES.load(artifact.runtime)(path, threads=1) as opened:
            assert opened.spec == batched.spec_of(artifact)
            assert opened.inputs[0].shape == (2, 3, 256, 256)
            assert [output.shape[0] for output in opened.outputs] == [2, 2]
            assert opened.spec.quantization == artifact.quantization
    calibrations = {a.quantization.calibration_sha256 for a in batched.manifest.artifacts if a.quantization}
    assert len(calibrations) == 1, "one calibration serves all batches"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("runtime", "bundle"),
    [
        ("openvino", "batched_bundle"),
        ("ort", "batched_bundle"),
        pytest.param("tflite", "batched_tflite_bundle", marks=pytest.mark.slow),
    ],
)
def test_an_image_has_the_outputs_that_it_has_alone_wherever_it_stands_in_a_batch(
    request: pytest.FixtureRequest, tensors: list[Floats], runtime: str, precision: str, bundle: str
) -> None:
    batched: Bundle = request.getfixturevalue(bundle)

    def opened(batch: int) -> Any:
        artifact = batched.artifact(runtime, precision, batch)
        return registry.RUNTIMES.load(runtime)(batched.path_of(artifact), threads=1)

    first, second = tensors[:2]
    with opened(1) as one, opened(2) as two:
        alone = [one.run({"images": tensor}) for tensor in (first, second)]
        found = two.run({"images": np.concatenate([first, second])})
        turned = two.run({"images": np.concatenate([second, first])})
    for name in found:
        for place in (0, 1):
            expected = alone[place][name][0]
            assert snr_db(expected, found[name][place]) > 60
            assert snr_db(expected, turned[name][1 - place]) > 60
            assert snr_db(expected, found[name][1 - place]) < 30, "the two images tell places apart"


def faulty_batch(bundle: Bundle, precision: str, path: Path, how: str) -> Path:
    """A copy of the ONNX file of two images that computes the second one wrongly."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(bundle.path_of(bundle.artifact("ort", precision, 2)))
    graph = model.graph
    if how == "first image twice":
        constant, node = np.array([0, 0]), helper.make_node("Gather", ["images", "c"], ["seen"], axis=0)
    else:  # the second one brighter by half
        constant = np.array([1, 1.5], np.float32).reshape(2, 1, 1, 1)
        node = helper.make_node("Mul", ["images", "c"], ["seen"])
    for other in graph.node:
        other.input[:] = ["seen" if name == "images" else name for name in other.input]
    graph.initializer.append(numpy_helper.from_array(constant, "c"))
    graph.node.insert(0, node)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("how", "precision", "said"),
    [
        ("first image twice", "fp32", "does not keep the images of a batch apart"),
        ("first image twice", "int8", "does not keep the images of a batch apart"),
        ("second brighter", "fp32", r"of image 2 in a batch of 2 with a relative error"),
    ],
)
def test_a_batch_whose_second_image_is_wrong_is_refused(
    batched_bundle: Bundle, tensors: list[Floats], tmp_path: Path, how: str, precision: str, said: str
) -> None:
    artifact = batched_bundle.artifact("ort", precision)
    if precision == "int8":
        graph: Any = registry.REFERENCES.load("int8")(batched_bundle).open(artifact)._graph_module
    else:
        graph = _capture_of(batched_bundle)
    source = Source(graph, (), batched_bundle.spec_of(artifact))
    whole = batched_bundle.path_of(batched_bundle.artifact("ort", precision, 2))
    assert verify.verify(whole, "ort", source, tensors, 2).snr_db > verify.INT8_MIN_SNR_DB
    with pytest.raises(VerificationError, match=said):
        verify.verify(
            faulty_batch(batched_bundle, precision, tmp_path / "model.onnx", how), "ort", source, tensors, 2
        )


def _capture_of(bundle: Bundle) -> Any:
    return captured_checkpoint(bundle.path_of(bundle.artifact("eager", "fp32"))).graph_module


def test_images_of_a_batch_are_all_different_even_where_there_are_few(source: Source) -> None:
    builtin = open_dataset("builtin", split="test")
    three = _Few(builtin, 3)
    tensors = verify.verification_tensors(three, source.spec.input, 6)
    assert len(tensors) == 6
    assert len({tensor.tobytes() for tensor in tensors}) == 6
    assert len(verify.verification_tensors(builtin, source.spec.input, 1)) == 4


class _Few:
    """The first images of a data set."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self.root, self._dataset, self._count = dataset.root, dataset, count

    def __iter__(self) -> Any:
        return iter([image for image, _ in zip(self._dataset, range(self._count), strict=False)])


def test_a_source_of_one_image_stays_as_it_is(source: Source) -> None:
    assert with_batch(source, 1) is source
    three = with_batch(source, 3)
    assert three.spec == source.spec.with_batch(3)
    assert three.example_inputs[0].shape == (3, 3, 256, 256)
    for graph_module, count in ((source.graph_module, 1), (three.graph_module, 3)):
        values = [node.meta["val"].shape[0] for node in graph_module.graph.nodes if node.target in _RESHAPES]
        assert set(values) == {count}


_RESHAPES = (torch.ops.aten.reshape.default, torch.ops.aten.view.default)


class Constants(nn.Module):
    """Reshapes and expands a constant beside the images, and the images with a size that is left open."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.arange(3.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shifted = images + self.shift.reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
        return shifted.reshape(1, -1, 2).expand(1, 24, 2)


@pytest.mark.parametrize("batch", [3, -1])
def test_constants_of_a_graph_stay_those_of_one_image_and_broadcast(batch: int) -> None:
    captured = torch.export.export(Constants(), (torch.zeros(1, 3, 4, 4),)).module(check_guards=False)
    graph_module = copy.deepcopy(captured)  # without the check that its input is of one image
    set_batch(graph_module, batch)
    images = torch.rand(3, 3, 4, 4)
    if batch == -1:  # two sizes cannot both be left open
        assert [1, -1, 2] in [node.args[1] for node in graph_module.graph.nodes if node.target in _RESHAPES]
        return
    expected = torch.cat([Constants()(images[index : index + 1]) for index in range(3)])
    assert torch.equal(graph_module(images), expected)


class Mixing(nn.Module):
    """An operator that knows of one image only."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = images.flatten()[:24].reshape(1, 24)
        return flat[:, :12].reshape(1, 3, 4), flat.reshape(1, 3, 8)


def test_an_operator_that_is_of_one_image_only_is_refused(source: Source) -> None:
    graph_module = torch.export.export(Mixing(), source.example_inputs).module(check_guards=False)
    mixing = Source(graph_module, source.example_inputs, source.spec)
    with pytest.raises(VendorError, match="cannot be exported for a batch of 2"):
        with_batch(mixing, 2)


@pytest.mark.parametrize("batches", [(), (2,), (0, 1), (1, 257)])
def test_batches_without_one_or_beyond_what_can_be_are_refused(
    checkpoint: Path, tmp_path: Path, batches: tuple[int, ...]
) -> None:
    request = ExportRequest(checkpoint, tmp_path / "b", ("onnx",), ("fp32",), batches=batches)
    with pytest.raises(UsageError, match=r"cannot export these batches.*Fix: --batch 1"):
        export_bundle(request)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("targets", "precisions"),
    [("onnx openvino tflite tensorrt tensorrt-rtx", "fp32 fp16 int8"), ("tflite", "int8-a16 int8-dynamic")],
)
def test_every_target_makes_every_precision_for_a_batch(
    trained: Path, tmp_path: Path, targets: str, precisions: str
) -> None:
    report = export_bundle(
        ExportRequest(
            trained,
            tmp_path / "b",
            tuple(targets.split()),
            tuple(precisions.split()),
            calibration=open_dataset("builtin", split="val"),
            recipe=Recipe(images=6, rounding="nearest"),
            batches=(1, 3),
        )
    )
    rows = {(row.target, row.precision, row.batch): row for row in report.rows}
    assert len(rows) == 2 * len(targets.split()) * len(precisions.split())
    for (target, precision, batch), row in rows.items():
        alone = rows[target, precision, 1]
        assert (row.status, row.note) == (alone.status, alone.note)
        if precision != "fp32":
            assert row.output_snr_db > alone.output_snr_db - 3, (target, batch)
    bundle = open_bundle(tmp_path / "b")
    paths = {entry.path for artifact in bundle.manifest.artifacts for entry in artifact.files}
    assert len(paths) == sum(len(artifact.files) for artifact in bundle.manifest.artifacts)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["ghostnet", "mnasnet", "mobilenetv3_large", "mobilenetv3_small"])
def test_the_graph_of_every_backbone_treats_each_image_by_itself(backbone: str) -> None:
    weights = Path(__file__).resolve().parents[2] / "weights" / f"bccd_ssdlite320_{backbone}.safetensors"
    captured = captured_checkpoint(weights)
    three = with_batch(Source(captured.graph_module, captured.example_inputs, captured.spec), 3)
    torch.manual_seed(0)
    images = torch.randn(three.example_inputs[0].shape)
    with torch.inference_mode():
        found = three.graph_module(images)
        for index in range(3):
            alone = captured.graph_module(images[index : index + 1])
            for one, expected in zip(found, alone, strict=True):
                torch.testing.assert_close(one[index], expected[0], rtol=1e-4, atol=1e-4)
