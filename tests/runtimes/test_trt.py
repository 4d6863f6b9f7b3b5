"""What a machine without TensorRT is told; tests/contract holds the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedet import registry
from edgedet.errors import MissingDeviceError, MissingExtraError


@pytest.fixture
def _broken_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tensorrt package whose native library cannot be loaded."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("tensorrt", "edgedet_runtimes.trt"):
        sys.modules.pop(name, None)
    yield
    for name in ("tensorrt", "edgedet_runtimes.trt"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("_broken_tensorrt")
def test_missing_native_libraries_are_a_missing_device() -> None:
    with pytest.raises(MissingDeviceError, match=r"libnvinfer\.so\.10") as caught:
        registry.RUNTIMES.load("tensorrt")
    assert "LD_LIBRARY_PATH" in caught.value.fix


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "edgedet_runtimes.trt", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        registry.RUNTIMES.load("tensorrt")
    assert caught.value.fix == registry.install_command("tensorrt")
