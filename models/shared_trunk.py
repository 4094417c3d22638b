"""Tasks on shared trunks.

Story: inputs become features on a trunk, φ(x). Each head reads the features, f_h(x) = φ(x)·w_h/√k. A task follows a
head up to its own intercept c_t, amplitude a_t and (when told so) sign, and is observed with its own homoscedastic
noise:

    θ ~ trunk,   w_h ~ relation,   a_t ~ HalfNormal,   c_t ~ Normal,   σ_t ~ noise
    η_t(x) = c_t ± a_t · φ(x)·w_h(t)/√k
    y_t ~ family(η_t(x), σ_t)

With ``head_widths`` a head reads features of its own, ψ_h(x) = tanh(φ(x) W_h + b_h), in the place of φ(x).

The learned σ_t are the weights of the tasks: 1/σ_t² is what a Gaussian task's squared error is multiplied by
(Kendall, Gal & Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018, equation 5), here with a
posterior instead of a point estimate. Hard parameter sharing itself is Caruana, "Multitask learning", 1997.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bmtl.arrangement import Arrangement
from bmtl.data import Data
from bmtl.model import functions, observe, private
from bmtl.noise import HalfNormal, Scale
from bmtl.relations import Independent, Relation
from bmtl.trunks import MLP, Trunk
from bmtl.views import Inputs, Views, pairs


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
    head_widths : tuple of int
        Widths of tanh layers that every head (of a categorical task: every category) has to itself, between the
        trunk's features and its weights. Default: none, heads are linear in the features.
    inputs : mapping of str to sequence of str
        For some tasks the inputs (columns) that their functions depend on; the trunk's parameters are shared all the
        same. Default: all inputs, for every task.

    Raises
    ------
    TaskError
        If a task is to see no input.
    ValueError
        If a width is below 1, or heads with layers of their own are to be tied to each other: their weights are then
        of different features.
    """

    trunk: Trunk = field(default_factory=MLP)
    relation: Relation = field(default_factory=Independent)
    noise: Scale = field(default_factory=HalfNormal)
    amplitude: Scale = field(default_factory=HalfNormal)
    arrangement: Arrangement | None = None
    head_widths: tuple[int, ...] = ()
    inputs: Inputs = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "head_widths", tuple(self.head_widths))
        object.__setattr__(self, "inputs", pairs(self.inputs))
        if min(self.head_widths, default=1) < 1:
            raise ValueError(f"SharedTrunk needs head_widths ≥ 1, got {self.head_widths}")
        if self.head_widths and not isinstance(self.relation, Independent):
            raise ValueError(f"heads with layers of their own cannot be tied by {type(self.relation).__name__}")

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return self.arrangement or Arrangement.shared(names)

    def program(self, e: Any, data: Data) -> None:
        plan = data.design.plan(self.arranged(data.design.names))
        views = Views.of(self.inputs, data.design)
        phi = self.trunk.sample(e, views.inputs(e, data.x), plan.n_trunks)
        if self.head_widths:
            phi = private(e, phi, plan, self.head_widths)
        heads = self.relation.sample(e, plan, data.design, phi.shape[-1], self.amplitude)
        observe(e, data, functions(e, data, phi, heads.w, plan, views), heads, plan, self.noise)
