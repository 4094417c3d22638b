"""The few words a probabilistic program is written in, whatever runs it."""

from __future__ import annotations

from typing import Any, Protocol

from bmtl.data import Block


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

    def sample(self, name: str, distribution: Any) -> Any:
        """A latent variable."""

    def mixture(self, log_share: Any, components: Any) -> Any:
        """A mixture over the last batch dimension of ``components``, with the log of the shares that sum to one."""

    def factor(self, name: str, log_density: Any) -> None:
        """A term of the log-density."""

    def observe(self, block: Block, eta: Any, noise: Any, scale: float) -> None:
        """The cells of one family, given their linear predictors and noises.

        ``scale`` multiplies the log-likelihood: total rows over rows in the minibatch.
        """
