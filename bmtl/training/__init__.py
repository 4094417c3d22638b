"""Point estimates of multi-task networks: the classic weightings, to compare with."""

from __future__ import annotations

from bmtl.fitting.gains import Gains
from bmtl.training.loop import Recipe
from bmtl.training.sampling import Sampling
from bmtl.training.stopping import Stopping
from bmtl.training.train import train
from bmtl.training.trained import Trained
from bmtl.training.weightings import (
    GradNorm,
    PCGrad,
    Profiled,
    Static,
    Step,
    TorchJD,
    Uncertainty,
    Unitary,
    Update,
    Weighting,
)

__all__ = [
    "Gains", "GradNorm", "PCGrad", "Profiled", "Recipe", "Sampling", "Static", "Step", "Stopping", "TorchJD", "Trained",
    "Uncertainty", "Unitary", "Update", "Weighting", "train",
]
