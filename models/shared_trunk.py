"""Tasks on shared trunks.

Story: inputs become features on a trunk, φ(x). Each head reads the features, f_h(x) = φ(x)·w_h/√k. A task follows a
head up to its own intercept c_t, amplitude a_t and (when told so) sign, and is observed with its own homoscedastic
noise:

    θ ~ trunk,   w_h ~ relation,   a_t ~ HalfNormal,   c_t ~ Normal,   σ_t ~ noise
    η_t(x) = c_t ± a_t · φ(x)·w_h(t)/√k
    y_t ~ family(η_t(x), σ_t)

The learned σ_t are the weights of the tasks: 1/σ_t² is what a Gaussian task's squared error is multiplied by
(Kendall, Gal & Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018, equation 5), here with a
posterior instead of a point estimate. Hard parameter sharing itself is Caruana, "Multitask learning", 1997.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bmtl.arrangement import Arrangement
from bmtl.data import Data
from bmtl.model import functions, observe
from bmtl.noise import HalfNormal, Scale
from bmtl.relations import Independent, Relation
from bmtl.trunks import MLP, Trunk


@dataclass(frozen=True)
class SharedTrunk:
    """Tasks on shared trunks, in any arrangement.

    Parameters
    ----------
    trunk : Trunk
        Features of the inputs.
    relation : Relation
        Prior on the heads.
    noise : Scale
        Prior on each task's noise.
    amplitude : Scale
        Prior on the size of each task's function, on the modelled scale.
    arrangement : Arrangement, optional
        Which tasks share trunks and heads. Default: one trunk for all, a head each.
    """

    trunk: Trunk = field(default_factory=MLP)
    relation: Relation = field(default_factory=Independent)
    noise: Scale = field(default_factory=HalfNormal)
    amplitude: Scale = field(default_factory=HalfNormal)
    arrangement: Arrangement | None = None

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return self.arrangement or Arrangement.shared(names)

    def program(self, e: Any, data: Data) -> None:
        plan = data.design.plan(self.arranged(data.design.names))
        phi = self.trunk.sample(e, data.x, plan.n_trunks)
        heads = self.relation.sample(e, plan, data.design, phi.shape[-1], self.amplitude)
        f = functions(e, phi, heads.w, plan.trunk_of_head)
        observe(e, data, f, heads, plan, self.noise)
