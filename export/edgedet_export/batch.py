"""The source of an artifact for several images at once, made from the one for a single image.

Capturing, calibration, rounding and corrections know one image only, and weights and scales are the same
for any number: what a graph reshapes to is all that changes. So one calibration serves all batches, and
PyTorch on one image after another is what each of them is verified against.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgedet.errors import VendorError
from edgedet.models.capture import set_batch
from edgedet.spec import DetectorSpec
from edgedet_export.target import Source


def with_batch(source: Source, batch: int) -> Source:
    """The same detector for so many images; the source itself for one.

    Args:
        source: Of one image, in float or with quantizers; it is not changed.
        batch: Images of one inference, 1 to `edgedet.spec.MOST_IMAGES`.

    Raises:
        VendorError: An operator of the graph is for one image and cannot be for more.
    """
    if batch == 1:
        return source
    graph_module = copy.deepcopy(source.graph_module)
    set_batch(graph_module, batch)
    spec = source.spec.with_batch(batch)
    example_inputs = (torch.zeros(spec.input.tensor.shape),)
    _propagate(graph_module, example_inputs, spec)
    return Source(graph_module, example_inputs, spec)


def _propagate(graph_module: GraphModule, inputs: tuple[torch.Tensor, ...], spec: DetectorSpec) -> None:
    """Give every node the example value that it has for this batch; outputs must have the spec's shapes."""
    try:
        with torch.inference_mode():
            outputs = _ExampleValues(graph_module).run(*inputs)
    except Exception as exc:  # whatever an operator raises where shapes do not fit
        raise _is_of_one_image(spec, f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}") from exc
    found = [tuple(output.shape) for output in outputs]
    if found != [output.shape for output in spec.outputs]:
        raise _is_of_one_image(spec, f"outputs of shapes {', '.join(map(str, found))}")


class _ExampleValues(Interpreter):
    """Runs a graph and notes shape and type of every value in its node."""

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta["val"] = torch.empty_like(value, device="meta")
        return value


def _is_of_one_image(spec: DetectorSpec, got: str) -> VendorError:
    return VendorError(
        f"the detector cannot be exported for a batch of {spec.input.batch}",
        got=got,
        expected="operators that treat each image by itself",
        fix="leave --batch out, or take a backbone without the operator",
    )
