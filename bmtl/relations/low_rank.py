"""Heads of low rank: combinations of a few shared functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale
from bmtl.relations._base import Heads, free_amplitude, free_intercept, stick_breaking


@dataclass(frozen=True)
class LowRank:
    """``W = Λ diag(√π) V``: every head mixes the same few functions, the first of which carry most of the variance.

        Λ ~ Normal(0, 1),   V ~ Normal(0, 1),   π_c = v_c Π_{l<c} (1 − v_l),   v_c ~ Uniform(0, 1)

    The twin of the trace norm with a posterior (Argyriou, Evgeniou & Pontil, "Convex multi-task feature learning",
    Machine Learning 2008): shares of the variance that shrink with their order, as the precisions of Bhattacharya &
    Dunson ("Sparse Bayesian infinite factor models", Biometrika 2011) do, but that sum to one, so that heads are of
    unit scale and the amplitude stays the size of a task's function. Heads of different trunks mix different
    functions.

    Sites: ``head_loading`` is Λ, ``head_basis`` V (a trunk each), ``head_stick`` −log(1 − v).

    Parameters
    ----------
    rank : int, optional
        ≥ 1: functions at the most. Default: as many as heads or features, whichever are fewer.
    """

    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"LowRank needs a rank ≥ 1, got {self.rank}")

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        rank = min(plan.n_heads, k, self.rank or k)
        zero, one = e.asarray(0.0), e.asarray(1.0)
        scale = e.xp.exp(0.5 * stick_breaking(e, rank, concentration=1.0))
        basis = e.sample("head_basis", e.dist.Normal(zero, one).expand([plan.n_trunks, rank, k]).to_event(3))
        own = e.sample("head_loading", e.dist.Normal(zero, one).expand([plan.n_heads, rank]).to_event(2))
        w = e.xp.matmul((own * scale[..., None, :])[..., None, :], e.take(basis, plan.trunk_of_head, -3))[..., 0, :]
        return Heads(w, amplitude=free_amplitude(e, design, amplitude), intercept=free_intercept(e, design))


__all__ = ["LowRank"]
