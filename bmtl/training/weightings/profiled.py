"""Homoscedastic uncertainty, profiled out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bmtl.training.weightings.unitary import Unitary


@dataclass(frozen=True)
class Profiled(Unitary):
    """The likelihood of `Uncertainty` at its optimum over the noises: ``Σ_t log σ̂_t`` with ``σ̂_t² = mean r_t²``.

    The profile likelihood (Murphy & van der Vaart, "On profile likelihood", JASA 2000). Its gradient is that at σ̂ held
    (the envelope theorem), so that σ̂ is computed and not learned. The logarithm of a batch's own mean square would be
    biased downwards (Jensen); σ̂ is that of all training cells at the start of each epoch, held during it. With one
    step an epoch this is exact. For families without a closed form the optimum is found by golden-section search.
    """

    noise: ClassVar[str] = "profiled"
