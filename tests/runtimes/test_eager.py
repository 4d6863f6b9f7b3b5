from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet.spec import InputSpec

torch = pytest.importorskip("torch")
eager = pytest.importorskip("edgedet_runtimes.eager", reason="the torch extra is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgedet.models.checkpoint import save_checkpoint
    from edgedet.models.config import BackboneConfig, DetectorConfig, SsdLiteConfig
    from edgedet.models.detector import build_detector

    config = DetectorConfig(
        name="tiny",
        labels=("cell",),
        input=InputSpec(size_hw=(32, 32)),
        backbone=BackboneConfig(name="mobilenetv2_035", out_strides=(16,)),
        head=SsdLiteConfig(extra_channels=(), scales=(0.3, 0.8)),
    )
    path = tmp_path_factory.mktemp("eager") / "tiny.safetensors"
    save_checkpoint(path, build_detector(config).eval())
    return path


def test_the_thread_count_of_the_process_is_put_back(checkpoint: Path, monkeypatch: Any) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    with eager.EagerRuntime(checkpoint, threads=before + 1) as runtime:
        forward = runtime._detector.forward

        def spy(images: Any) -> Any:
            seen.append(torch.get_num_threads())
            return forward(images)

        monkeypatch.setattr(runtime._detector, "forward", spy)
        runtime.run({"images": np.zeros((1, 3, 32, 32), np.float32)})
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_batch_normalisation_is_frozen(checkpoint: Path) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    with eager.EagerRuntime(checkpoint) as runtime:
        first = runtime.run({"images": images})
        runtime.run({"images": images * 100})
        again = runtime.run({"images": images})
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_the_spec_names_the_checkpoint_that_it_came_from(checkpoint: Path) -> None:
    from edgedet.files import sha256_of

    assert eager.EagerRuntime.read_spec(checkpoint).provenance.checkpoint_sha256 == sha256_of(checkpoint)
