"""Weightings: how the losses of several tasks become one step. Each is one file of one shape."""

from __future__ import annotations

from bmtl.training.weightings._base import Step, Update, Weighting
from bmtl.training.weightings.gradnorm import GradNorm
from bmtl.training.weightings.pcgrad import PCGrad
from bmtl.training.weightings.profiled import Profiled
from bmtl.training.weightings.static import Static
from bmtl.training.weightings.torch_jd import TorchJD
from bmtl.training.weightings.uncertainty import Uncertainty
from bmtl.training.weightings.unitary import Unitary

__all__ = [
    "GradNorm", "PCGrad", "Profiled", "Static", "Step", "TorchJD", "Uncertainty", "Unitary", "Update", "Weighting",
]
