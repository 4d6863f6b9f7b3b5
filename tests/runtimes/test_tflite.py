from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgedet import registry
from edgedet.embedded import SPEC_KEY
from edgedet.errors import BundleError, MissingExtraError

tflite = pytest.importorskip("edgedet_runtimes.tflite", reason="ai-edge-litert is not installed")
passing = pytest.importorskip("passing_model")
passing_model = passing.passing_model

GRIDS = {"int8": (0.05, -7), "uint8": (0.02, 128)}

scales = st.floats(2**-13, 8, width=32)
grids = st.one_of(
    st.builds(tflite.Affine, scales.map(np.float32), st.integers(-128, 127), st.just(np.dtype(np.int8))),
    st.builds(tflite.Affine, scales.map(np.float32), st.integers(0, 255), st.just(np.dtype(np.uint8))),
)


@given(grids, st.data())
def test_what_is_in_range_comes_back_within_half_a_step(affine: Any, data: st.DataObject) -> None:
    limits = np.iinfo(affine.dtype)
    low, high = ((limit - affine.zero_point) * float(affine.scale) for limit in (limits.min, limits.max))
    values = data.draw(hnp.arrays(np.float32, 16, elements=st.floats(-1, 1, width=32)))
    values = np.float32((low + high) / 2) + values * np.float32((high - low) / 2)
    back = affine.dequantize(affine.quantize(values))
    assert back.dtype == np.float32
    assert np.abs(back - values).max() <= float(affine.scale) / 2 * (1 + 1e-4) + 1e-6 * np.abs(values).max()


@given(grids)
def test_what_is_out_of_range_saturates(affine: Any) -> None:
    limits = np.iinfo(affine.dtype)
    huge = np.array([-3e38, -1e6 * affine.scale, 1e6 * affine.scale, 3e38], np.float32)
    assert affine.quantize(huge).tolist() == [limits.min, limits.min, limits.max, limits.max]


@given(grids)
def test_every_integer_survives_the_way_to_real_and_back(affine: Any) -> None:
    limits = np.iinfo(affine.dtype)
    integers = np.arange(limits.min, limits.max + 1).astype(affine.dtype)
    assert np.array_equal(affine.quantize(affine.dequantize(integers)), integers)


def test_rounding_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    scale, zero_point = 0.037, 3
    values = np.arange(-300, 300, dtype=np.float32) * np.float32(scale) / 2  # every second one is a tie
    wanted = torch.fake_quantize_per_tensor_affine(torch.from_numpy(values), scale, zero_point, -128, 127)
    affine = tflite.Affine(np.float32(scale), zero_point, np.dtype(np.int8))
    np.testing.assert_allclose(affine.dequantize(affine.quantize(values)), wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", GRIDS)
def test_a_quantized_file_takes_and_gives_floats(tmp_path: Path, spec: Any, dtype: str) -> None:
    scale, zero_point = GRIDS[dtype]
    path = tmp_path / "model.tflite"
    path.write_bytes(passing_model(dtype, scale=scale, zero_point=zero_point))
    images = np.linspace(-2, 2, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    with tflite.TfliteRuntime(path, spec=spec) as runtime:
        outputs = runtime.run({"images": images})
    for array in outputs.values():
        assert array.dtype == np.float32
        assert 0 < np.abs(array - images.reshape(array.shape)).max() <= scale / 2 + 1e-6


@pytest.mark.parametrize("dtype", ["float32", *GRIDS])
def test_an_image_with_channels_last_is_given_in_planes(tmp_path: Path, spec: Any, dtype: str) -> None:
    scale, zero_point = GRIDS.get(dtype, (0.0, 0))
    path = tmp_path / "model.tflite"
    path.write_bytes(passing_model(dtype, shape=passing.CHANNELS_LAST, scale=scale, zero_point=zero_point))
    images = np.linspace(-2, 2, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    with tflite.TfliteRuntime(path, spec=spec) as runtime:
        assert runtime.inputs == (spec.input.tensor,)
        first, second = runtime.run({"images": images}), runtime.run({"images": -images})
    for name, array in first.items():
        pixels = images.transpose(0, 2, 3, 1).reshape(array.shape)
        assert np.abs(array - pixels).max() <= scale / 2 + 1e-6
        assert np.abs(second[name] + pixels).max() <= scale / 2 + 1e-6


def test_an_image_of_another_size_is_refused_in_either_order(tmp_path: Path, spec: Any) -> None:
    path = tmp_path / "model.tflite"
    for shape in ((1, 3, 2, 8), (1, 2, 8, 3)):
        path.write_bytes(passing_model("float32", shape=shape))
        with pytest.raises(BundleError, match="inputs") as caught:
            tflite.TfliteRuntime(path, spec=spec)
        assert str(list(shape)) in caught.value.got


def test_integers_without_a_scale_are_not_passed_off_as_floats(tmp_path: Path, spec: Any) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(passing_model("int8"))
    with pytest.raises(BundleError, match="images int8"):
        tflite.TfliteRuntime(path, spec=spec)


def test_a_model_without_a_spec_says_how_to_get_one(tmp_path: Path) -> None:
    path = tmp_path / "foreign.tflite"
    path.write_bytes(passing_model("float32", metadata={"min_runtime_version": b"1.5.0"}))
    with pytest.raises(BundleError, match="without a detector spec") as caught:
        tflite.TfliteRuntime(path)
    assert "export" in caught.value.fix


def test_a_spec_of_another_schema_version_is_refused(tmp_path: Path, spec: Any) -> None:
    text = spec.to_json().replace('"schema_version":1', '"schema_version":99')
    path = tmp_path / "future.tflite"
    path.write_bytes(passing_model("float32", metadata={SPEC_KEY: text.encode()}))
    with pytest.raises(BundleError, match="schema version 1"):
        tflite.TfliteRuntime(path)


def test_opening_works_in_a_process_without_standard_error(tmp_path: Path, spec: Any) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(passing_model("float32", metadata={SPEC_KEY: spec.to_json().encode()}))
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edgedet_runtimes.tflite import TfliteRuntime\n"
        "os.close(2)\n"
        "runtime = TfliteRuntime(Path(sys.argv[1]))\n"
        "print(runtime.spec.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "passing-through\n")


def test_standard_error_is_back_after_opening(
    tmp_path: Path, spec: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(BundleError):
        tflite.TfliteRuntime(path, spec=spec)
    os.write(2, b"seen")
    assert capfd.readouterr().err == "seen"


@pytest.fixture
def _without_litert(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As on a device where ai-edge-litert is not installed."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.delitem(sys.modules, "edgedet_runtimes.tflite")
    yield
    sys.modules.pop("edgedet_runtimes.tflite", None)


@pytest.mark.usefixtures("_without_litert")
def test_without_any_interpreter_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match="ai_edge_litert") as caught:
        registry.RUNTIMES.load("tflite")
    assert caught.value.fix == registry.install_command("tflite")


@pytest.mark.usefixtures("_without_litert")
def test_an_installed_tflite_runtime_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("tflite_runtime"), ModuleType("tflite_runtime.interpreter")
    module.Interpreter = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tflite_runtime", package)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)
    assert importlib.import_module("edgedet_runtimes.tflite").Interpreter is module.Interpreter
