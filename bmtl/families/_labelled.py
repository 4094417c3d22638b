"""What families of labelled outcomes have in common: outcomes are the codes 0, 1, … of their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bmtl.families._base import Array, Family

FEWEST = 3


@dataclass(frozen=True)
class Labelled(Family):
    """A family of at least three labels, kept in its one field.

    Attributes
    ----------
    ordered : bool
        Whether the order of the labels means anything.
    """

    noise_name: ClassVar[str | None]
    support = "labels"
    amplitude = 1.5
    dtype = np.int32
    ordered: ClassVar[bool]
    field: ClassVar[str]

    def __post_init__(self) -> None:
        given: Sequence[Any] = getattr(self, self.field)
        if isinstance(given, str):
            raise ValueError(f"{type(self).__name__} needs a sequence of {self.field}, got the text {given!r}")
        labels = tuple(str(label) for label in given)
        object.__setattr__(self, self.field, labels)
        repeated = [label for label, count in Counter(labels).items() if count > 1]
        if repeated:
            raise ValueError(f"{type(self).__name__} has repeated {self.field}: {', '.join(map(repr, repeated))}")
        if 0 < len(labels) < FEWEST:
            raise ValueError(
                f"{type(self).__name__} needs at least {FEWEST} {self.field}, got {', '.join(map(repr, labels))}; "
                "two are a bernoulli outcome of 0 and 1"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        labels: tuple[str, ...] = getattr(self, self.field)
        return labels

    def labelled(self, labels: Sequence[str]) -> Labelled:
        """The family with these labels."""
        return type(self)(**{self.field: tuple(labels)})

    def valid(self, y):
        return (y >= 0) & (y == np.floor(y)) & (y < (len(self.labels) or np.inf))

    def log_pmf(self, xp: Any, eta: Any, noise: Any) -> Any:
        """Log probability of every label, in the last dimension."""
        raise TypeError(f"{type(self).__name__} does not define its probabilities")

    def shares(self, y: Array) -> Array:
        """Share of every label among the outcomes, as if half of one more had been seen of each."""
        counts = np.bincount(np.asarray(y, dtype=int), minlength=len(self.labels)) + 0.5
        return counts / counts.sum()

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.Categorical(logits=self.log_pmf(e.xp, eta, noise))

    def mean(self, xp, eta, noise, exposure):
        return xp.exp(self.log_pmf(xp, eta, noise))

    def log_prob(self, y, eta, noise=1.0, exposure=1.0):
        return pick(self.log_pmf(np, eta, np.asarray(noise)), y)

    def draw(self, rng, eta, noise=1.0, exposure=1.0):
        # The label at which the cumulative probability passes a uniform number; rounding must not lead past the last.
        below = np.cumsum(np.exp(self.log_pmf(np, eta, np.asarray(noise))), axis=-1)[..., :-1]
        return np.sum(rng.random(below.shape[:-1])[..., None] > below, axis=-1).astype(float)


def pick(table: Array, y: Array) -> Array:
    """Entry of each outcome's own label from a table with labels in the last dimension."""
    codes = np.asarray(y, dtype=int)[..., None]
    shape = np.broadcast_shapes(codes.shape[:-1], table.shape[:-1])
    found = np.take_along_axis(
        np.broadcast_to(table, (*shape, table.shape[-1])), np.broadcast_to(codes, (*shape, 1)), axis=-1
    )
    return found[..., 0]
