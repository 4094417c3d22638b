"""What every fitting routine returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Draws:
    """Posterior draws and how they came about.

    Attributes
    ----------
    sites : dict
        Latent site to float32 array, ``chains × draws × event shape``, on the modelled scale.
    stats : dict
        Sampler statistics, ``chains × draws``.
    trace : ndarray or None
        For SVI and MAP: mean negative ELBO of every chunk of steps, ``restarts × chunks``.
    elbo : ndarray or None
        For SVI and MAP: final ELBO of every restart; −∞ where it was not finite.
    log_ratio : ndarray or None
        For SVI: log p(draw, data) − log q(draw), one a draw.
    settled : bool
        Whether the optimiser stopped because the ELBO had settled (always true for NUTS).
    seconds : float
        Wall time.
    guide : Any
        For SVI and MAP: parameters of the best restart's guide, from which other fits can start. Not saved.
    constants : dict
        What a model that proposes runs (`bmtl.runs`) keeps with its fit.
    checked : DataFrame or None
        Convergence checks of the runs that draws were pooled from.
    powers : ndarray, shape (T,), or None
        To which the tasks' likelihoods are raised, if not all to 1.
    """

    sites: dict[str, np.ndarray]
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    trace: np.ndarray | None = None
    elbo: np.ndarray | None = None
    log_ratio: np.ndarray | None = None
    settled: bool = True
    seconds: float = 0.0
    guide: Any = field(default=None, repr=False)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    checked: pd.DataFrame | None = field(default=None, repr=False)
    powers: np.ndarray | None = None

    @property
    def failed(self) -> bool:
        """Whether the ELBO of no restart was finite: then the draws mean nothing."""
        return self.elbo is not None and not np.any(np.isfinite(self.elbo))

    @property
    def shape(self) -> tuple[int, int]:
        """Chains and draws."""
        first: Any = next(iter(self.sites.values()))
        return first.shape[:2]
