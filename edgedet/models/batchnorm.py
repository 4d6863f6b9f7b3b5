"""Live batch normalisation from weights in which it was folded.

Folded weights compute y = conv(x) + b. Batch normalisation computes g (conv(x) - m) / sqrt(v + eps) + c.
With m and v the statistics of conv(x) on real images, g = sqrt(v + eps) and c = m + b give the same y, and
training can go on from these statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedet.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class ConvNorm:
    """Names of a convolution and of the batch normalisation after it, and the key of their folded weights.

    Without batch normalisation, as in squeeze-and-excite, the convolution has its own bias.
    """

    conv: str
    norm: str | None
    key: str


def unfold_batch_norm(
    network: nn.Module, pairs: Iterable[ConvNorm], folded: Mapping[str, Tensor], images: Tensor
) -> None:
    """Load folded weights into a network with batch normalisation; its outputs are the folded network's.

    One forward pass is enough: each layer gives its folded outputs as soon as its statistics are known.

    Args:
        network: Its convolutions have a bias or batch normalisation. Left in the mode that it was in.
        pairs: Every convolution of the network and its normalisation.
        folded: `key.weight` and `key.bias` for every pair.
        images: Real images `[N, 3, H, W]`, normalised as for inference.

    Raises:
        CheckpointError: A weight is missing or has another shape.
    """
    pairs = list(pairs)
    _check(network, pairs, folded)
    was_training = network.training
    network.eval()
    hooks = []
    with torch.no_grad():
        for pair in pairs:
            conv, bias = network.get_submodule(pair.conv), folded[f"{pair.key}.bias"]
            conv.get_parameter("weight").copy_(folded[f"{pair.key}.weight"])
            if pair.norm is None:
                conv.get_parameter("bias").copy_(bias)
                continue
            match = _match_statistics(bias)
            hooks.append(network.get_submodule(pair.norm).register_forward_pre_hook(match))
        network(images)
    for hook in hooks:
        hook.remove()
    network.train(was_training)


def _match_statistics(bias: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + bias.double())

    return hook


def _check(network: nn.Module, pairs: list[ConvNorm], folded: Mapping[str, Tensor]) -> None:
    problems = []
    for pair in pairs:
        weight = network.get_submodule(pair.conv).get_parameter("weight")
        for key, shape in ((f"{pair.key}.weight", weight.shape), (f"{pair.key}.bias", weight.shape[:1])):
            if key not in folded:
                problems.append(f"{key} missing")
            elif folded[key].shape != shape:
                problems.append(f"{key} {list(folded[key].shape)} instead of {list(shape)}")
    if problems:
        raise CheckpointError(
            "the folded weights do not fit the network",
            got=f"{len(problems)} problems: " + ", ".join(problems[:10]),
            expected="a weight and a bias for each of its convolutions",
            fix="use the weights of the same network and width",
        )
