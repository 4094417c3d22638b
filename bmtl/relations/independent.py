"""Heads that know nothing of each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale
from bmtl.relations._base import Gaussian, Heads, free_amplitude, free_intercept, free_scale, free_sites


@dataclass(frozen=True)
class Independent:
    """Unit heads ``w_h ~ Normal(0, I)``, independent: tasks meet in the trunk only."""

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        zero, one = e.asarray(0.0), e.asarray(1.0)
        w = e.sample("head", e.dist.Normal(zero, one).expand([plan.n_heads, k]).to_event(2))
        return Heads(w, amplitude=free_amplitude(e, design, amplitude), intercept=free_intercept(e, design))

    def gaussian(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Gaussian:
        loc, scale = free_scale(e, plan, design, k, amplitude)
        return Gaussian(loc, scale[..., None] * e.asarray(np.eye(k + 1)))

    def sites(self, plan: Plan, design: Design, z: Any) -> dict[str, Any]:
        return free_sites(plan, design, z)
