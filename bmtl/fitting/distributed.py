"""Fits by several processes of `torch.distributed` at once, each of which works on its share of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bmtl.fitting import powers
from bmtl.fitting.devices import current
from bmtl.fitting.settings import NUTS, Settings


@dataclass(frozen=True)
class Ranks:
    """The processes of the default process group, seen from one of them.

    Parameters
    ----------
    rank, size : int
        This process, and how many there are.
    device : torch.device
        Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def of(cls, engine: str, device: str, settings: Settings, executor: Executor | None = None) -> Ranks:
        """Those that are to do a fit together.

        Raises
        ------
        ValueError
            If there is no process group or it cannot work on this device, there is no device for this rank, or the fit
            is not one that several ranks can do.
        """
        if engine != "pyro" or isinstance(settings, NUTS):
            method = type(settings).__name__
            raise ValueError(f"distributed=True is for SVI and MAP on Pyro, not for {method} on {engine}")
        if powers.seeks(settings):
            weighting = type(settings.weighting).__name__  # type: ignore[union-attr]
            raise ValueError(f"distributed=True is not for {weighting}, which finds its powers in one process")
        if executor is not None:
            raise ValueError("an executor and distributed=True are two ways of sharing the work: give one of them")
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "distributed=True needs a process group: call torch.distributed.init_process_group() in a script that "
                "torchrun starts"
            )
        rank, own = dist.get_rank(), torch.device(device)
        if own == torch.device("cuda"):
            own = torch.device("cuda", dist.get_node_local_rank(rank))
        if own.type == "cuda" and own.index >= torch.cuda.device_count():
            raise ValueError(
                f"there is no {own} for rank {rank}: torch sees {torch.cuda.device_count()} CUDA devices; start one "
                "rank a device, or give each its device"
            )
        able = dist.get_backend_config()
        if f"{own.type}:" not in able:
            raise ValueError(f"the process group ({able}) has no backend for {own}: name one in init_process_group()")
        return cls(rank, dist.get_world_size(), own)

    @property
    def first(self) -> bool:
        """Whether this is the rank that shows progress and keeps what is kept."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Which of n rows are this rank's: as many as any other's, or one more or less.

        Raises
        ------
        ValueError
            If there are fewer rows than ranks.
        """
        if n < self.size:
            raise ValueError(f"{n} rows a step are fewer than the {self.size} ranks that share them")
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over ranks, to the bit the same on all of them; changes ``values`` in place."""
        dist.all_reduce(values)
        return values.div_(self.size)

    def of_first(self, value: Any) -> Any:
        """What rank 0 has; of other ranks ``value`` is not looked at."""
        held = [value]
        with current(self.device):
            dist.broadcast_object_list(held, src=0)
        return held[0]

    def check(self, what: Mapping[str, str]) -> None:
        """Raise ValueError, on all ranks, unless all have the same in ``what``, and work on devices of one kind."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        every: list[Any] = [None] * self.size
        with current(self.device):
            dist.all_gather_object(every, {**what, "device": name})
        for rank, own in enumerate(every):
            apart = [part for part, value in own.items() if value != every[0][part]]
            if apart:
                raise ValueError(
                    f"rank {rank} differs from rank 0 in {' and '.join(apart)}: give all the same tasks, model and "
                    "options"
                )
