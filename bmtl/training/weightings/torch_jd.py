"""Aggregators of the package torchjd."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bmtl.tasks import Tasks
from bmtl.training.weightings._base import Step, Update, gradients


@dataclass(frozen=True)
class TorchJD:
    """The tasks' gradients on the trunk, aggregated by torchjd; heads descend their own losses.

    Quinton & Rey, "Jacobian descent for multi-objective optimization", 2024. Needs ``pip install 'bmtl[training]'``.

    Parameters
    ----------
    aggregator : torchjd.aggregation.Aggregator
        Such as ``torchjd.aggregation.IMTLG()``; every run has its own copy.

    Raises
    ------
    ImportError
        If torchjd is not installed.
    TypeError
        If it is no aggregator.
    """

    aggregator: Any

    noise: ClassVar[str] = "fixed"
    pulls: ClassVar[bool] = True

    def __post_init__(self) -> None:
        try:
            from torchjd.aggregation import Aggregator
        except ImportError as error:
            raise ImportError("TorchJD needs the package torchjd: pip install 'bmtl[training]'") from error
        if not isinstance(self.aggregator, Aggregator):
            raise TypeError(f"TorchJD needs an instance of torchjd.aggregation.Aggregator, got {self.aggregator!r}")

    def start(self, tasks: Tasks, seeds: Sequence[int], like: torch.Tensor) -> Any:
        return [copy.deepcopy(self.aggregator).to(like.device) for _ in seeds]

    def update(self, state: list[Any], step: Step) -> tuple[Update, list[Any]]:
        each = zip(state, gradients(step), strict=True)
        return Update(torch.ones_like(step.losses), torch.stack([own(matrix) for own, matrix in each])), state
