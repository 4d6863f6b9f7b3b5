from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from edgedet.models import load_checkpoint
from edgedet.models.capture import Captured


def test_folding_batch_norm_leaves_none_and_changes_no_output(captured: Captured, trained: Path) -> None:
    detector = load_checkpoint(trained)
    image = torch.randn(captured.spec.input.tensor.shape, generator=torch.Generator().manual_seed(0))
    operators = Counter(str(node.target) for node in captured.graph_module.graph.nodes)
    assert not [name for name in operators if "batch_norm" in name or name.endswith("_.default")]
    with torch.inference_mode():
        for folded, live in zip(captured.graph_module(image), detector(image), strict=True):
            assert (folded - live).abs().max() <= 1e-5 * live.abs().max()
