"""Every task alone.

Story: `SharedTrunk` with a trunk to each task, so that nothing is shared and the posterior is the product of the
single-task posteriors:

    θ_t ~ trunk,   w_t ~ Normal(0, I),   η_t(x) = c_t + a_t · φ_t(x)·w_t/√k,   y_t ~ family(η_t(x), σ_t)
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
from bmtl.views import Inputs, Views, pairs


@dataclass(frozen=True)
class Decoupled:
    """A trunk, a head and a noise to each task.

    Parameters
    ----------
    trunk, noise, amplitude, inputs
        As in `SharedTrunk`.
    """

    trunk: Trunk = field(default_factory=MLP)
    noise: Scale = field(default_factory=HalfNormal)
    amplitude: Scale = field(default_factory=HalfNormal)
    inputs: Inputs = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", pairs(self.inputs))

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return Arrangement.decoupled(names)

    def program(self, e: Any, data: Data) -> None:
        plan = data.design.plan(self.arranged(data.design.names))
        views = Views.of(self.inputs, data.design)
        phi = self.trunk.sample(e, views.inputs(e, data.x), plan.n_trunks)
        heads = Independent().sample(e, plan, data.design, phi.shape[-1], self.amplitude)
        observe(e, data, functions(e, data, phi, heads.w, plan, views), heads, plan, self.noise)
