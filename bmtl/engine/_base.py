"""The few words a probabilistic program is written in, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bmtl.data import Block, Data


class Engine(Protocol):
    """What a program may call. One program, written against this, runs on Pyro and on NumPyro.

    Attributes
    ----------
    name : str
        ``pyro`` or ``numpyro``.
    dist : module
        ``pyro.distributions`` or ``numpyro.distributions``.
    xp : module
        Array namespace: array-api-compat's torch, or ``jax.numpy``.
    """

    name: str
    dist: Any
    xp: Any

    def asarray(self, values: Any) -> Any:
        """Values as a float32 array of the engine, on its device."""

    def take(self, values: Any, index: Any, axis: int) -> Any:
        """Entries of an array along a negative axis: in its stead come the dimensions of ``index``.

        ``index`` is an ndarray of known places, or an array of the engine."""

    def sample(self, name: str, distribution: Any) -> Any:
        """A latent variable."""

    def defined(
        self,
        shape: tuple[int, ...],
        log_prob: Callable[[Any], Any],
        noise: tuple[int, ...],
        draw: Callable[[Any], Any],
    ) -> Any:
        """A distribution of real arrays that the engine does not have.

        Parameters
        ----------
        shape, noise : tuple of int
            Shapes of a draw, and of the standard normal numbers that it is made of.
        log_prob, draw : callable
            Log density of arrays, and arrays from standard normal ones; both with any leading dimensions.
        """

    def given(self, name: str, data: Data) -> Any:
        """What the run was given and its draws remember, such as a graph: the array ``given/name`` of the data."""

    def factor(self, name: str, log_density: Any) -> None:
        """A term of the log-density."""

    def observe(self, block: Block, eta: Any, noise: Any, scale: float) -> None:
        """The cells of one family, given their linear predictors and noises.

        ``scale`` multiplies the log-likelihood: total rows over rows in the minibatch. So does the block's power, task
        by task.
        """
