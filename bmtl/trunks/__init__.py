"""Trunks: how inputs become the features that heads read. Each is one file with one `sample`."""

from __future__ import annotations

from bmtl.trunks._base import ACTIVATIONS, Trunk
from bmtl.trunks.fourier import Fourier
from bmtl.trunks.identity import Identity
from bmtl.trunks.linear import Linear
from bmtl.trunks.mlp import MLP
from bmtl.trunks.module import Module

__all__ = ["ACTIVATIONS", "MLP", "Fourier", "Identity", "Linear", "Module", "Trunk"]
