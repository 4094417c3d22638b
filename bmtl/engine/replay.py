"""Programs run again at given draws, to read off linear predictors instead of scoring them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bmtl.data import Block, Data
from bmtl.engine.numpyro import NumPyroEngine


class Replaying:
    """Substitutes draws for latent variables and keeps each block's linear predictor and noise.

    An engine that replays is this before the engine itself.

    Parameters
    ----------
    draws : mapping
        Site name to array, draws in the leading dimension (``draws × event shape``).

    Attributes
    ----------
    eta, noise : dict
        Block name to array, ``draws × tasks × rows`` (wide) or ``draws × rows`` (long), as the block has them.
    own : dict
        Block name to what `observed` was given.
    """

    xp: Any

    def __init__(self, draws: Mapping[str, Any]) -> None:
        self.draws = draws
        self.eta: dict[str, Any] = {}
        self.noise: dict[str, Any] = {}
        self.own: dict[str, Any] = {}

    def sample(self, name: str, distribution: Any) -> Any:
        return self.draws[name]

    def given(self, name: str, data: Data) -> Any:
        """As each draw remembers it; a draw that does not was made under what the data hold."""
        return self.draws[name] if name in self.draws else data.values[f"given/{name}"]

    def factor(self, name: str, log_density: Any) -> None:
        """Nothing: the draws are there."""

    def observe(self, block: Block, eta: Any, noise: Any, scale: float) -> None:
        self.eta[block.name] = eta
        self.noise[block.name] = noise

    def observed(self, block: Block, outcome: Any) -> None:
        """A block whose outcomes have a distribution of the program's own.

        ``outcome`` has ``log_prob(y)``, ``sample(key)`` and ``mean``. The linear predictor is the link of the mean a
        unit of exposure, and there is no noise.
        """
        self.own[block.name] = outcome
        self.noise[block.name] = None

    def predictor(self, block: Block) -> Any:
        """Linear predictors of a block at the draws."""
        if block.name not in self.own:
            return self.eta[block.name]
        mean = self.own[block.name].mean / block.exposure
        links = {"identity": lambda: mean, "log": lambda: self.xp.log(mean),
                 "logit": lambda: self.xp.log(mean) - self.xp.log1p(-mean)}
        return links[block.family.link]()

    def mean(self, block: Block) -> Any:
        """Mean of a block's outcomes at the draws, or the probability of each label (last)."""
        if block.name in self.own:
            return self.own[block.name].mean
        return block.family.mean(self.xp, self.eta[block.name], self.noise[block.name], block.exposure)

    def weight(self, block: Block) -> Any:
        """Fisher information of each of a block's outcomes about its linear predictor; NaN if it is not known."""
        if block.name in self.own:
            return self.xp.full((len(next(iter(self.draws.values()))), *block.y.shape), float("nan"))
        return block.family.weight(self.xp, self.eta[block.name], self.noise[block.name], block.exposure)

    def outcome(self, block: Block) -> Any:
        """The distribution of a block's cells at the draws."""
        if block.name in self.own:
            return self.own[block.name]
        return block.family.distribution(self, self.eta[block.name], self.noise[block.name], block.exposure)


class Replay(Replaying, NumPyroEngine):
    """Replays on JAX."""

    def new(self, block: Block, key: Any) -> Any:
        """A block's cells drawn anew."""
        return self.outcome(block).sample(key)
