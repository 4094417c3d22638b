"""How to fit: one frozen dataclass a method, its fields are the options `bmtl.fit` takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from bmtl.model import in_trunk

GUIDES = ("mean_field", "low_rank", "full_rank", "flow")
TRUNKS = ("auto", "point", "guide")
OPTIMISERS = ("adam", "gains")
RANK = 16
"""Rank of the low-rank guide's covariance factor."""
FLOWS = 2
"""Flows one after another; after each the order of the coordinates is reversed."""
HIDDEN = 32
"""Units of a flow's hidden layer, or as many as coordinates if these are more."""
FLOW_DRAWS = 8
"""Draws a step of a flow: its entropy is estimated, and from one draw it often ends no better than a Gaussian."""


@dataclass(frozen=True)
class SVI:
    """Stochastic variational inference.

    Parameters
    ----------
    guide : {"mean_field", "low_rank", "full_rank", "flow"}
        Approximation on the unconstrained scale: Gaussian, or two inverse autoregressive flows (Kingma et al., NeurIPS
        2016), which can bend, whose cost grows with the square of the number of parameters, and which can overflow
        (`FitError`) on data with next to no noise. Mean-field intervals are too narrow where parameters are correlated.
    trunk : {"auto", "point", "guide"}
        What becomes of the trunk's parameters: estimated by their posterior mode, with heads, amplitudes, intercepts
        and noises under the guide (a "neural linear" model: Ober & Rasmussen, 2019), or under the guide too. A
        mean-field guide over a network underfits where few rows say much (the noise it reports is then too large), a
        point overfits where many rows say little; ``auto`` tries both on four fifths of the rows and takes the
        point if it predicts the others better beyond noise.
    restarts : int
        Runs from different starting points; the one with the highest ELBO is kept, all are reported.
    max_steps : int
        Optimiser steps after which a run stops even if its ELBO has not settled; the fit then says so.
    batch_size : int
        Rows a step. All rows are used when there are no more than that.
    learning_rate : float
        Of Adam, a third of it for a flow, a tenth for gains; divided by 10 in two stages as the ELBO settles.
    draws : int
        Posterior draws taken from the guide.
    optimiser : {"adam", "gains"}
        Adam, or `bmtl.training.Gains` with momentum on the negative ELBO a cell: on the Pyro engine, for large batches.
    weighting : Weighting, optional
        Powers to which the tasks' likelihoods are raised: `bmtl.training.Static`, by default with the tasks'
        importance, or `bmtl.training.GradNorm`, which finds them in the first stage, in a single run, and then holds
        them. The target is then a power posterior, not the posterior, and the fit says so. GradNorm's L is the
        exponential of the mean negative log-likelihood a cell, whose constants cancel where noises are learned too.
    """

    guide: str = "mean_field"
    trunk: str = "auto"
    restarts: int = 3
    max_steps: int = 20_000
    batch_size: int = 256
    learning_rate: float = 0.03
    draws: int = 1000
    optimiser: str = "adam"
    weighting: Any = None

    def __post_init__(self) -> None:
        if self.weighting is not None and (isinstance(self.weighting, type) or not hasattr(self.weighting, "powers")):
            raise TypeError(f"weighting must be Static(...) or GradNorm(...) of bmtl.training, got {self.weighting!r}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"unknown optimiser {self.optimiser!r}; known: {', '.join(OPTIMISERS)}")
        if self.guide not in GUIDES:
            raise ValueError(f"unknown guide {self.guide!r}; known: {', '.join(GUIDES)}")
        if self.trunk not in TRUNKS:
            raise ValueError(f"unknown trunk {self.trunk!r}; known: {', '.join(TRUNKS)}")
        _at_least_one(self, "restarts", "max_steps", "batch_size", "draws")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")


@dataclass(frozen=True)
class NUTS:
    """The no-U-turn sampler.

    Parameters
    ----------
    chains, warmup, draws : int
        Chains, and iterations of each: adaptation, then kept.
    target_accept : float
        Target acceptance probability of the step-size adaptation, in (0, 1).
    max_tree_depth : int
        At most 2^depth leapfrog steps an iteration.
    marginal : bool
        Integrate the heads and intercepts of Gaussian tasks out while sampling, and draw them afterwards: the same
        posterior, in fewer and smoother dimensions. NumPyro only; for relations whose heads are Gaussian given their
        other parameters (Independent, Exchangeable, Correlated), every task with a head of its own.
    """

    chains: int = 4
    warmup: int = 1000
    draws: int = 1000
    target_accept: float = 0.9
    max_tree_depth: int = 10
    marginal: bool = False

    def __post_init__(self) -> None:
        _at_least_one(self, "chains", "warmup", "draws", "max_tree_depth")
        if not 0 < self.target_accept < 1:
            raise ValueError(f"target_accept must lie in (0, 1), got {self.target_accept}")


@dataclass(frozen=True)
class MAP:
    """The posterior mode on the unconstrained scale: one draw, no uncertainty.

    Parameters
    ----------
    restarts, max_steps, batch_size, learning_rate
        As in `SVI`.
    """

    restarts: int = 3
    max_steps: int = 20_000
    batch_size: int = 256
    learning_rate: float = 0.01

    draws = 1

    def __post_init__(self) -> None:
        _at_least_one(self, "restarts", "max_steps", "batch_size")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")


Settings = SVI | NUTS | MAP
METHODS: dict[str, type[Settings]] = {"svi": SVI, "nuts": NUTS, "map": MAP}


def resolve(method: str | Settings, options: dict[str, Any]) -> tuple[str, Settings]:
    """Method name and settings.

    Raises
    ------
    ValueError
        If there is no such method.
    TypeError
        If an option is not one of the method's.
    """
    if not isinstance(method, str):
        if options:
            raise TypeError(f"give options either as {type(method).__name__}(...) or by keyword, not both: {options}")
        return {kind: name for name, kind in METHODS.items()}[type(method)], method
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    known = [field.name for field in fields(METHODS[method])]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"method {method!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return method, METHODS[method](**options)


def is_point(settings: SVI | MAP, site: str) -> bool:
    """Whether a latent site is estimated by a point, without spread, under these settings."""
    return isinstance(settings, SVI) and settings.trunk == "point" and in_trunk(site)


def learns_trunk(model: Any) -> bool:
    """Whether a model has a trunk with parameters."""
    trunk = getattr(model, "trunk", None)
    return trunk is not None and trunk.learned


def step_size(settings: SVI | MAP) -> float:
    """Learning rate of the first stage: the networks of a flow, and gains that grow tenfold, do not stand the usual."""
    if with_gains(settings):
        return settings.learning_rate / 10.0
    flow = isinstance(settings, SVI) and settings.guide == "flow"
    return settings.learning_rate / 3.0 if flow else settings.learning_rate


def draws_a_step(settings: SVI | MAP) -> int:
    """Draws from the guide that a step's estimate of the ELBO is the mean of."""
    return FLOW_DRAWS if isinstance(settings, SVI) and settings.guide == "flow" else 1


def with_gains(settings: Settings) -> bool:
    """Whether steps are scaled by a gain a parameter, which only the Pyro engine does."""
    return isinstance(settings, SVI) and settings.optimiser == "gains"


def point_trunk(model: Any, settings: Settings) -> bool:
    """Whether a fit estimates the trunk by a point: it has then seen every cell that LOO would leave out."""
    return isinstance(settings, SVI) and settings.trunk == "point" and learns_trunk(model)


def _at_least_one(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be ≥ 1, got {getattr(settings, name)}")


__all__ = ["GUIDES", "MAP", "METHODS", "NUTS", "SVI", "Settings", "resolve"]
