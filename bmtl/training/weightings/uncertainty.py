"""Homoscedastic uncertainty, learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bmtl.training.weightings.unitary import Unitary


@dataclass(frozen=True)
class Uncertainty(Unitary):
    """The joint negative log-likelihood with every task's noise learned along: ``Σ_t r_t²/2σ_t² + log σ_t``.

    Kendall, Gal & Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018, equation 7, in the form
    of the likelihood itself: log σ counts once for every cell, a categorical task's σ² is a temperature inside its
    softmax instead of a factor outside, and families without a noise (yes/no, counts) keep the weight that their
    Fisher information gives them. What is learned is log σ, from σ = 1 on the modelled scale, and no weight decay acts
    on it: that would be a prior at σ = 1.
    """

    noise: ClassVar[str] = "learned"
