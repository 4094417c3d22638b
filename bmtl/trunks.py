"""Trunks: how inputs become the features that heads read.

Every trunk draws its parameters and returns features in one call, for any number of independent copies (an
arrangement may hold several trunks). Parameters carry their copy in the first event dimension, so that all copies are
one batched computation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

ACTIVATIONS = ("tanh", "relu")


class Trunk(Protocol):
    """Features of the inputs.

    Attributes
    ----------
    linear : bool
        Whether features are linear in the inputs.
    learned : bool
        Whether it has parameters.
    """

    linear: ClassVar[bool]
    learned: ClassVar[bool]

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        """Draw ``copies`` independent trunks and apply them.

        Parameters
        ----------
        x : array, shape (rows, inputs)
            Standardised inputs.

        Returns
        -------
        array, shape (copies or 1, rows, features)
            Features of about unit scale; 1 where a trunk has no parameters and all copies are equal.
        """


@dataclass(frozen=True)
class Identity:
    """The standardised inputs themselves: heads are then the coefficients of linear models."""

    linear: ClassVar[bool] = True
    learned: ClassVar[bool] = False

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        return x[None]


@dataclass(frozen=True)
class Linear:
    """``φ(x) = x V`` with ``V ~ Normal(0, 1/d)``: a shared low-dimensional subspace of the inputs.

    Parameters
    ----------
    features : int
        Dimensions of the subspace, ≥ 1.
    """

    features: int

    linear: ClassVar[bool] = True
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"Linear needs features ≥ 1, got {self.features}")

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        return x[None] @ _weights(e, "trunk_w", copies, x.shape[-1], self.features)


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron with ``Normal(0, 1/fan-in)`` weights and ``Normal(0, 1)`` biases.

    The scaling keeps the prior over functions independent of the widths (Neal, Bayesian Learning for Neural Networks,
    1996, chapter 2).

    Parameters
    ----------
    widths : tuple of int
        Width of each hidden layer; the last is the number of features.
    activation : {"tanh", "relu"}
    """

    widths: tuple[int, ...] = (32, 32)
    activation: str = "tanh"

    linear: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"MLP needs at least one width, all ≥ 1, got {self.widths}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}")

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        features = x[None]
        for layer, width in enumerate(self.widths):
            w = _weights(e, f"trunk_w{layer}", copies, features.shape[-1], width)
            zero, one = e.asarray(0.0), e.asarray(1.0)
            b = e.sample(f"trunk_b{layer}", e.dist.Normal(zero, one).expand([copies, 1, width]).to_event(3))
            features = features @ w + b
            features = e.xp.tanh(features) if self.activation == "tanh" else e.xp.clip(features, 0.0, None)
        return features


@dataclass(frozen=True)
class Fourier:
    """Random Fourier features of a squared-exponential kernel with a lengthscale per input.

    ``φ(x) = √2 [cos(Ωx/ℓ), sin(Ωx/ℓ)]`` with fixed ``Ω ~ Normal(0, 1)`` and ``log ℓ ~ Normal(log √(2d), 1)``: a
    Gaussian process whose relevant inputs the tasks share (Rahimi & Recht, 2007).

    Parameters
    ----------
    features : int
        Number of features, even and ≥ 2.
    seed : int
        Of the frequencies, which are part of the specification.
    """

    features: int = 64
    seed: int = 0

    linear: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.features < 2 or self.features % 2:
            raise ValueError(f"Fourier needs an even number of features ≥ 2, got {self.features}")

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        d = x.shape[-1]
        frequencies = e.asarray(np.random.default_rng(self.seed).standard_normal((d, self.features // 2)))
        loc, one = e.asarray(0.5 * np.log(2.0 * d)), e.asarray(1.0)
        lengthscale = e.sample("trunk_lengthscale", e.dist.LogNormal(loc, one).expand([copies, d]).to_event(2))
        angle = (x / lengthscale[..., None, :]) @ frequencies
        return np.sqrt(2.0).item() * e.xp.concat([e.xp.cos(angle), e.xp.sin(angle)], axis=-1)


def _weights(e: Any, name: str, copies: int, fan_in: int, fan_out: int) -> Any:
    zero, scale = e.asarray(0.0), e.asarray(fan_in**-0.5)
    return e.sample(name, e.dist.Normal(zero, scale).expand([copies, fan_in, fan_out]).to_event(3))


__all__ = ["ACTIVATIONS", "MLP", "Fourier", "Identity", "Linear", "Trunk"]
