"""Powers of the tasks' likelihoods: a power posterior in the place of the posterior."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmtl.data import Data
from bmtl.errors import FitError
from bmtl.fitting.settings import SVI, Settings

MOST = 10.0
"""Changes of a mean log-likelihood beyond this, in nats a cell, count as this: their exponential stays a number."""


def seeks(settings: Settings) -> bool:
    """Whether powers are found along the way."""
    return isinstance(settings, SVI) and hasattr(settings.weighting, "moved")


def first(tasks: Any, settings: Settings) -> dict[str, np.ndarray]:
    """The array ``power`` that a fit begins with, ``(T,)``; nothing where all powers are 1 throughout."""
    if not isinstance(settings, SVI) or settings.weighting is None:
        return {}
    return {"power": np.asarray(settings.weighting.powers(tasks), dtype=np.float32)}


def cells(xp: Any, data: Data) -> Any:
    """Observed cells of each task among the rows of ``data``, ``(T,)``, at least 1."""
    if data.task is not None:
        (block,) = data.blocks()
        mask = xp.stack([(data.task == t) & block.mask for t in range(data.design.n_tasks)])
    else:
        order = np.argsort(np.concatenate([block.tasks for block in data.blocks()]))
        mask = xp.concat([block.mask for block in data.blocks()], axis=0)[order]
    return xp.clip(xp.sum(xp.astype(mask, xp.float32), axis=-1), 1.0, None)


def moved(xp: Any, weighting: Any, weights: Any, before: Any, log_likelihood: Any, pulls: Any, n: Any) -> Any:
    """The next powers and the losses that rates are against, ``(T,)`` each.

    Parameters
    ----------
    before : array, shape (T,)
        Mean negative log-likelihoods a cell at the start; NaN at the start itself.
    log_likelihood : array, shape (T,)
    pulls : array, shape (T, coordinates of the trunk)
        Gradient of each task's log-likelihood.
    n : array, shape (T,)
        Cells.
    """
    loss = -log_likelihood / n
    before = xp.where(xp.isnan(before), loss, before)
    size = xp.sqrt(xp.sum(pulls**2, axis=-1)) / n
    rate = xp.exp(xp.clip(loss - before, -MOST, MOST))
    return weighting.moved(xp, weights, size, rate, xp.ones_like(weights) > 0), before


def without_trunk(weighting: Any, model: Any) -> FitError:
    """That there is nothing on which to measure gradients."""
    name = type(getattr(model, "trunk", model)).__name__
    return FitError(f"{type(weighting).__name__} works on the trunk's parameters, and {name} has none")
