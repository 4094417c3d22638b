"""Learning rates of each weight's own, by the signs of its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

GROWTH, DECAY = 0.05, 0.95


class Gains(torch.optim.Optimizer):
    """Gradient descent in which every weight has a gain on the learning rate.

    A gain starts at 1. It grows by 0.05 where the gradient has the sign of the one before, is multiplied by 0.95
    where it has not, and is held within bounds (Hinton, "Neural networks for machine learning", lecture 6d, 2012). With
    momentum, the velocity is what the gradient's sign is compared with (Jacobs, "Increased rates of convergence through
    learning rate adaptation", Neural Networks, 1988): ``v ← momentum · v + gain · gradient``, ``weight ← weight −
    lr · v``. Signs of gradients of small batches are mostly noise: it is meant for large ones.

    Parameters
    ----------
    params : iterable of tensors, or of dicts
        As torch's optimisers have them.
    lr : float
        > 0.
    momentum : float
        In [0, 1).
    bounds : tuple of two floats
        Smallest and largest gain, 0 < smallest ≤ 1 ≤ largest.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.0, bounds: tuple[float, float] = (0.1, 10.0)
    ) -> None:
        if not lr > 0:
            raise ValueError(f"Gains needs lr > 0, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"Gains needs a momentum in [0, 1), got {momentum}")
        if not 0 < bounds[0] <= 1 <= bounds[1]:
            raise ValueError(f"Gains needs bounds around 1 and above 0, got {bounds}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "bounds": bounds})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; the loss if a closure computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for own in group["params"]:
                if own.grad is not None:
                    self._move(own, group)
        return loss

    def _move(self, own: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[own], own.grad
        assert gradient is not None
        if not state:
            state["gain"] = torch.ones_like(own)
            state["before"] = torch.zeros_like(own)
        else:
            agrees = gradient * state["before"] > 0
            gain = torch.where(agrees, state["gain"] + GROWTH, state["gain"] * DECAY)
            state["gain"] = torch.clamp(gain, *group["bounds"])
        step = state["gain"] * gradient
        if group["momentum"]:
            step = step + group["momentum"] * state["before"]
        state["before"] = step if group["momentum"] else gradient.clone()
        own.sub_(group["lr"] * step)
