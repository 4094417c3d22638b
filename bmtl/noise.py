"""Priors on positive scales: homoscedastic noise, and the amplitude of a task's function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np


class Scale(Protocol):
    """A prior on one positive number a task."""

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        """Draw the site ``name``, or give known values.

        Parameters
        ----------
        scale : ndarray, shape (T,)
            Natural scale of each task on the modelled (standardised) scale.
        unit : ndarray, shape (T,)
            The user's units in one modelled unit.

        Returns
        -------
        array, shape (T,)
            Positive, on the modelled scale.
        """


@dataclass(frozen=True)
class _Half:
    """The half of a distribution around zero, with the natural scale of each task."""

    scale: float = 1.0

    dist: ClassVar[str]

    def __post_init__(self) -> None:
        positive(type(self).__name__, "scale", self.scale)

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        half = getattr(e.dist, self.dist)
        return e.sample(name, half(e.asarray(self.scale * scale)).to_event(1))


@dataclass(frozen=True)
class HalfNormal(_Half):
    """``HalfNormal(scale)`` on the modelled scale, where outcomes have unit spread: it follows the data's units.

    Parameters
    ----------
    scale : float
        > 0.
    """

    dist = "HalfNormal"


@dataclass(frozen=True)
class HalfCauchy(_Half):
    """``HalfCauchy(scale)`` on the modelled scale: half of its mass is below ``scale``, and its tail is heavy.

    Gelman, "Prior distributions for variance parameters in hierarchical models", Bayesian Analysis, 2006.

    Parameters
    ----------
    scale : float
        > 0.
    """

    dist = "HalfCauchy"


@dataclass(frozen=True)
class InverseGamma:
    """``value² ~ InverseGamma(shape, scale)`` on the modelled scale: the conjugate prior of a Gaussian variance.

    The mean of value² is ``scale / (shape − 1)``. Values near zero have next to no prior probability, which keeps a
    noise from vanishing. The site holds the value, not its square.

    Parameters
    ----------
    shape, scale : float
        > 0.
    """

    shape: float = 3.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        positive(type(self).__name__, "shape", self.shape)
        positive(type(self).__name__, "scale", self.scale)

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        squared = e.dist.InverseGamma(e.asarray(np.full(scale.shape, self.shape)), e.asarray(self.scale * scale**2))
        root = e.dist.transforms.PowerTransform(e.asarray(0.5))
        return e.sample(name, e.dist.TransformedDistribution(squared, [root]).to_event(1))


@dataclass(frozen=True)
class Common:
    """One value for all tasks of a family, on the modelled scale: the residual of a classical hierarchical model.

    Parameters
    ----------
    prior : Scale
        Its prior.
    """

    prior: Scale = field(default_factory=HalfNormal)

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        return self.prior.sample(e, name, scale[:1], unit[:1]) * e.asarray(scale / scale[0])


@dataclass(frozen=True)
class Known:
    """A known value, in the user's units, the same for every task.

    Parameters
    ----------
    value : float
        > 0.
    """

    value: float

    def __post_init__(self) -> None:
        positive(type(self).__name__, "value", self.value)

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        return e.asarray(self.value / unit)


@dataclass(frozen=True)
class ByGroup:
    """A noise for each task and each group of rows (`Tasks.with_noise_groups`), all with the same prior.

    For the noise of a model, not for its amplitude.

    Parameters
    ----------
    prior : Scale
        One that draws a value for each, neither `Common` nor `Known`.
    """

    prior: Scale = field(default_factory=HalfNormal)

    def __post_init__(self) -> None:
        if isinstance(self.prior, (ByGroup, Common, Known)):
            raise ValueError(f"ByGroup needs a prior that draws a value for each task and group, got {self.prior}")

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        return self.prior.sample(e, name, scale, unit)


def positive(owner: str, field: str, value: float) -> None:
    """Raise ValueError unless a part's field is a finite number > 0."""
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{owner} needs a finite {field} > 0, got {value}")


__all__ = ["ByGroup", "Common", "HalfCauchy", "HalfNormal", "InverseGamma", "Known", "Scale"]
