"""Adam for several runs side by side, each with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """Adam (Kingma & Ba, ICLR 2015) on parameters with runs in the leading dimension.

    All that it keeps is on the parameters' device and nothing is read back, so that a CUDA graph can hold a step.

    Parameters
    ----------
    params : list of Tensor
        Each of shape ``(runs, …)``; changed in place.
    """

    def __init__(self, params: list[torch.Tensor]) -> None:
        self._params = params
        self._mean = [torch.zeros_like(own) for own in params]
        self._square = [torch.zeros_like(own) for own in params]
        self._steps = params[0].new_zeros(())

    @property
    def state(self) -> list[torch.Tensor]:
        """All that it keeps."""
        return [*self._mean, *self._square, self._steps]

    @torch.no_grad()
    def __call__(self, gradients: Sequence[torch.Tensor], rate: torch.Tensor) -> None:
        """One step.

        Parameters
        ----------
        rate : Tensor, shape (runs,)
            Learning rates.
        """
        self._steps += 1.0
        first, second = (1.0 - beta**self._steps for beta in BETAS)
        root = second.sqrt()
        for own, gradient, mean, square in zip(self._params, gradients, self._mean, self._square, strict=True):
            mean.lerp_(gradient, 1.0 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
            step = (rate * root / first).reshape(-1, *[1] * (own.ndim - 1))
            own.addcdiv_(mean * step, square.sqrt().add_(EPSILON * root), value=-1.0)
