"""What every trunk is: inputs to features, for any number of independent copies in one computation."""

from __future__ import annotations

from typing import Any, Protocol

ACTIVATIONS = ("tanh", "relu")


class Trunk(Protocol):
    """Features of the inputs.

    A trunk that only one engine can run says so in a class variable ``engines``, a tuple of their names. One with a
    width has a method ``wider(times)``, which gives a trunk of the same kind that is so many times as wide.

    Attributes
    ----------
    linear : bool
        Whether features are linear in the inputs.
    learned : bool
        Whether it has parameters to be inferred.
    """

    @property
    def linear(self) -> bool: ...

    @property
    def learned(self) -> bool: ...

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        """Draw ``copies`` independent trunks and apply them.

        Parameters carry their copy in the first event dimension: all copies are one batched computation.

        Parameters
        ----------
        x : array, shape (rows, inputs)
            Standardised inputs.

        Returns
        -------
        array, shape (copies or 1, rows, features)
            Features of about unit scale; 1 where a trunk has no parameters and all copies are equal.
        """


def weights(e: Any, name: str, copies: int, fan_in: int, fan_out: int) -> Any:
    """Draw the site ``name``, ``Normal(0, 1/fan-in)``, ``copies × fan-in × fan-out``."""
    zero, scale = e.asarray(0.0), e.asarray(fan_in**-0.5)
    return e.sample(name, e.dist.Normal(zero, scale).expand([copies, fan_in, fan_out]).to_event(3))


def layers(e: Any, start: str, x: Any, copies: int, widths: tuple[int, ...], activation: str = "tanh") -> Any:
    """Hidden layers with ``Normal(0, 1/fan-in)`` weights and ``Normal(0, 1)`` biases.

    Parameters
    ----------
    start : str
        What the names of the sites begin with: ``trunk_`` makes ``trunk_w0``, ``trunk_b0`` and so on.
    x : array, shape (copies or 1, rows, inputs)

    Returns
    -------
    array, shape (copies, rows, widths[-1])
    """
    for layer, width in enumerate(widths):
        w = weights(e, f"{start}w{layer}", copies, x.shape[-1], width)
        zero, one = e.asarray(0.0), e.asarray(1.0)
        b = e.sample(f"{start}b{layer}", e.dist.Normal(zero, one).expand([copies, 1, width]).to_event(3))
        x = x @ w
        x += b  # in place on torch
        x = e.xp.tanh(x) if activation == "tanh" else e.xp.clip(x, 0.0, None)
    return x
