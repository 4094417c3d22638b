"""What a fitted model of causes says, as the draws of `bmtl.causal.draws` that consequences follow from.

A model's linear predictors without causes are read off by running its program at draws without edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bmtl import replay
from bmtl.causal.columns import complete, outcomes
from bmtl.causal.draws import Draws, Index, sampled
from bmtl.causal.intervene import intervene
from bmtl.causal.subsets import Array
from bmtl.data import Block, inputs_only
from bmtl.tasks import Tasks


@dataclass(frozen=True, eq=False)
class FittedDraws(Draws):
    """S joint draws whose functions are those of a fitted model; what they are of is themselves, (S, T, n).

    Attributes
    ----------
    model : Model
    tasks : Tasks
    sites : mapping
        Latent sites without edges, ``S × event shape``.
    """

    model: Any
    tasks: Tasks
    sites: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, model: Any, tasks: Tasks, sites: Mapping[str, np.ndarray]) -> FittedDraws:
        """From draws of the sites on the modelled scale, ``edge`` and ``slope`` among them."""
        own, design = outcomes(tasks, complete(tasks)), replay.design_of(tasks)
        slopes = (sites["edge"] * sites["slope"]).astype(float) / (design.cause_scale * tasks.y_scale)[:, None]
        bare = {**sites, "edge": np.zeros_like(sites["edge"])}
        noises: list[Array] = [np.empty(0)] * tasks.n_tasks
        for part, block, value in replay.read(model, design, inputs_only(tasks.Z[:1], design), bare, _noise):
            for j, t in enumerate(block.tasks):
                noises[t] = np.concatenate([noises[t], value[:, j, 0]]) if part.start else value[:, j, 0]
        units = [noise * unit for noise, unit in zip(noises, tasks.y_scale, strict=True)]
        sample = sampled(own, np.random.default_rng(0))
        return cls(own, sites["edge"] != 0, slopes * tasks.y_scale, tuple(units), sample, model, tasks, bare)

    def at(self, Z: Array) -> Array:
        tasks = self.tasks
        design, eta = replay.design_of(tasks), replay.predictors_at(self.model, tasks, self.sites, Z)
        centre = tasks.y_centre + tasks.y_scale * design.cause_loc
        # In the program outcomes enter less their means, here as they are.
        shift = tasks.y_centre - np.einsum("sut,u->st", self.slopes, centre)
        found: Array = eta * tasks.y_scale[:, None] + shift[:, :, None]
        return found

    @cached_property
    def sampled(self) -> Array:
        return self.at(self.tasks.Z[self.columns.rows[self.sample]])

    def function(self, at: Index, t: int, where: Array) -> Array:
        found: Array = where[at, t]
        return found

    def lines(self, j: int) -> Array:
        return self._lines[:, :, j]

    @cached_property
    def _lines(self) -> Array:
        """Slopes of least squares on all standardised inputs over the sample of rows, (S, T, d)."""
        X = np.column_stack([np.ones(len(self.sample)), self.tasks.Z[self.columns.rows[self.sample]]])
        found: Array = self.sampled @ np.linalg.pinv(X)[1:].T
        return found


def predicted(draws: FittedDraws, Z: Array, exposure: Array, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Means, of labels the probability of each, and new outcomes at standardised inputs, ``S × n (× labels)`` each.

    Causes are drawn before effects; means are given the outcomes drawn of the causes.

    Parameters
    ----------
    exposure : (T, n) array
    """
    where = draws.at(Z)
    new, means = intervene(draws, {}, where, exposure.T, np.random.default_rng(seed))
    for t, family in enumerate(draws.columns.families):
        if family.labels:
            means[t] = np.empty((*new[t].shape, len(family.labels)))
            for _, at, _ in draws.distinct:
                entered = [own.entering(np, y[at]) for own, y in zip(draws.columns.families, new, strict=True)]
                means[t][at] = family.mean(np, draws.predictor(at, t, where, entered), draws.noise(at, t), exposure[t])
    return [own.astype(np.float32) for own in means], [own.astype(np.float32) for own in new]


def _noise(engine: Any, block: Block, key: Any) -> Any:  # noqa: ARG001
    """Noises at every row, draws in front."""
    noise, shape = engine.noise[block.name], engine.eta[block.name].shape
    return engine.xp.broadcast_to(noise, (*shape, *noise.shape[noise.ndim - block.family.noise_dims :]))
