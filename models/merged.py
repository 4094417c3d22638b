"""All tasks as one function.

Story: one trunk and one head; each task has its own intercept, amplitude, sign and noise, so that an affine change of
units or a flipped sign does not part two tasks that are the same function:

    θ ~ trunk,   w ~ Normal(0, I),   f(x) = φ(x)·w/√k
    η_t(x) = c_t ± a_t · f(x),   y_t ~ family(η_t(x), σ_t)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bmtl.arrangement import Arrangement
from bmtl.data import Data
from bmtl.model import functions, observe
from bmtl.noise import HalfNormal, Scale
from bmtl.relations import Independent
from bmtl.trunks import MLP, Trunk


@dataclass(frozen=True)
class Merged:
    """One trunk, one head.

    Parameters
    ----------
    trunk, noise, amplitude
        As in `SharedTrunk`.
    flipped : tuple of str
        Tasks that follow the function with its sign flipped.
    """

    trunk: Trunk = field(default_factory=MLP)
    noise: Scale = field(default_factory=HalfNormal)
    amplitude: Scale = field(default_factory=HalfNormal)
    flipped: tuple[str, ...] = ()

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return Arrangement.merged(names, self.flipped)

    def program(self, e: Any, data: Data) -> None:
        plan = data.design.plan(self.arranged(data.design.names))
        phi = self.trunk.sample(e, data.x, plan.n_trunks)
        heads = Independent().sample(e, plan, data.design, phi.shape[-1], self.amplitude)
        observe(e, data, functions(e, data, phi, heads.w, plan), heads, plan, self.noise)
