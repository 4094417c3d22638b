"""Programs run again at given draws on torch, for what only torch can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bmtl.data import Block
from bmtl.engine.pyro import PyroEngine
from bmtl.engine.replay import Replaying


class TorchReplay(Replaying, PyroEngine):
    """Replays on torch, on CUDA where there is any.

    Parameters
    ----------
    draws : mapping
        As of `Replaying`.
    """

    def __init__(self, draws: Mapping[str, Any]) -> None:
        PyroEngine.__init__(self, "cuda" if torch.cuda.is_available() else "cpu")
        # Copies: torch warns of arrays that it may not write to.
        held = {name: torch.tensor(value, dtype=torch.float32, device=self.device) for name, value in draws.items()}
        Replaying.__init__(self, held)

    def new(self, block: Block, key: Any) -> Any:
        """A block's cells drawn anew, by torch's global generator; ``key`` is JAX's and not needed."""
        return self.outcome(block).sample()
