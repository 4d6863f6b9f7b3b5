"""The processes that train together under `torchrun`; one process alone is a group of one.

Losses and gradients are summed over all processes, so N processes with batch size b take the steps of one
with N b. On CPUs that is not so of the statistics of batch normalisation: torch has `SyncBatchNorm` for GPUs
only, and each process normalises its own images, unless `freeze_norm` is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Group:
    """This process among all: its rank, how many there are, and its device."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and evaluates."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size == 1:
            return value
        result = value.clone()
        dist.all_reduce(result)
        return result

    def share(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def add_gradients(self, module: nn.Module) -> None:
        """Replace gradients by their sums over all processes, in one message.

        `DistributedDataParallel` would refuse backbones of which the head reads only the first maps, for
        their last layers have no gradients.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        sums = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(sums)
        for gradient, total in zip(gradients, torch.split(sums, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view(gradient.shape))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def process_group() -> Iterator[Group]:
    """Join the processes that `torchrun` started: NCCL on GPUs, gloo on CPUs."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = _CPU
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        yield Group(device=device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(rank, size, device)
    finally:
        dist.destroy_process_group()
