"""Data sets simulated from a model's prior, and the ranks of their true values among posterior draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size

from bmtl.data import Data, Design
from bmtl.engine.replay import Replay
from bmtl.fitting.numpyro_latent import Latent
from bmtl.model import Model, explained
from bmtl.runs import proposed, values_of
from bmtl.tasks import Tasks

ROWS = 3
"""Cells of a task, evenly spread, at which its linear predictor is ranked."""

FEWEST = 20
"""Draws that thinning leaves, however autocorrelated they are."""

IDENTIFIED = ("amplitude", "intercept", "noise_")
"""Beginnings of the names of sites without symmetries, on which all chains and guides must agree."""


class Ranks(NamedTuple):
    """Ranks of some quantities: names, and ``simulations × quantities`` normalised ranks and effective sample sizes."""

    names: tuple[str, ...]
    ranks: np.ndarray
    ess: np.ndarray


class Simulated:
    """Data sets of the same design, drawn from the prior of a model.

    Parameters
    ----------
    model : Model
    tasks : Tasks
        For everything but the outcomes.
    simulations : int
    seed : int

    Attributes
    ----------
    design : Design
    fixed : dict
        Arrays that all data sets have in common.
    own : dict
        Outcomes ``y/…`` of each, in the leading dimension.
    truth : ndarray, shape (data sets, size)
        Unconstrained true values.
    dropped : int
        Data sets left out by `keep`, or because their true values or outcomes, or the log-density at them, are not
        finite in float32.

    Raises
    ------
    ValueError
        If outcomes act on each other, and more than one graph is possible.
    """

    def __init__(self, model: Model, tasks: Tasks, simulations: int, seed: int) -> None:
        self.design = Design.of(tasks)
        values, runs = values_of(model, tasks, self.design), proposed(model, tasks, seed)
        if runs is not None:
            if len(runs) > 1:
                raise ValueError(f"{len(runs)} graphs are possible: simulate under one, EdgePrior(required=...)")
            values |= runs.arrays[0]
        # Outcomes that have causes are drawn again until all causes are those drawn, with the same random numbers.
        self._passes = 1 if runs is None else tasks.n_tasks
        self.fixed = {name: jnp.asarray(value) for name, value in values.items() if not name.startswith("y/")}
        self._outcomes = {name: jnp.asarray(value) for name, value in values.items() if name.startswith("y/")}
        self._model = model
        cells = explained(model, tasks).rows
        self._rows = [rows[np.unique(np.linspace(0, len(rows) - 1, ROWS).astype(int))] for rows in cells]
        self.latent = self.latent_of(model)
        truth, own, finite = jax.jit(jax.vmap(self._draw))(jax.random.split(jax.random.PRNGKey(seed), simulations))
        kept = np.flatnonzero(finite)
        self.truth = np.asarray(truth)[kept]
        self.own = {name: value[kept] for name, value in own.items()}
        self.dropped = simulations - len(kept)

    def keep(self, there: Sequence[bool]) -> None:
        """Drop the other data sets."""
        kept = np.flatnonzero(there)
        self.dropped += len(self.truth) - len(kept)
        self.truth, self.own = self.truth[kept], {name: value[kept] for name, value in self.own.items()}

    def outcomes(self, some: np.ndarray) -> dict[str, np.ndarray]:
        """Outcomes ``y/…`` of some data sets."""
        return {name: np.asarray(value)[some] for name, value in self.own.items()}

    def latent_of(self, model: Model) -> Latent:
        """Flat coordinates of a model's latent sites on this design."""
        return Latent.of(model, self.design, {**self.fixed, **self._outcomes})

    def _replay(self, sites: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[Replay, Data]:
        engine, data = Replay(sites), Data(self.design, {**self.fixed, **own})
        self._model.program(engine, data)
        return engine, data

    def _draw(self, key: Any) -> tuple[Any, dict[str, Any], Any]:
        """True values, outcomes, and whether all of it is finite."""
        prior_key, key = jax.random.split(key)
        z = self.latent.start(prior_key, {**self.fixed, **self._outcomes})
        sites = {name: value[None] for name, value in self.latent.constrain(z).items()}
        own = self._outcomes
        for _ in range(self._passes):
            engine, data = self._replay(sites, own)
            own = {}
            for number, block in enumerate(data.blocks()):
                new = engine.outcome(block).sample(jax.random.fold_in(key, number))[0].astype(block.y.dtype)
                own["y/" + block.name.removeprefix("y_")] = jnp.where(block.mask, new, block.y)
        return z, own, jnp.isfinite(self.latent.log_density(z, {**self.fixed, **own}))

    def _derived(self, sites: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Linear predictors at some cells, and the log-likelihood, at draws of one data set; draws in front."""
        engine, data = self._replay(sites, own)
        out: dict[str, Any] = {}
        total: Any = 0.0
        for block in data.blocks():
            cells = engine.outcome(block).log_prob(block.y)
            total = total + jnp.sum(jnp.where(block.mask, cells, 0.0), axis=tuple(range(1, cells.ndim)))
            eta = engine.predictor(block)
            for j, t in enumerate(block.tasks):
                for row in self._rows[t]:
                    cell = (..., j, row) if data.task is None else (..., row)
                    cell = cell if block.family.n_predictors == 1 else (*cell, slice(None))
                    out[f"eta[{self.design.names[t]}, {row}]"] = eta[cell]
        return out | {"log_likelihood": total}

    @cached_property
    def _derive(self) -> Callable[..., dict[str, Any]]:
        """`_derived` of every data set, one after another: memory for one is enough."""
        return jax.jit(lambda sites, own: jax.lax.map(lambda both: self._derived(*both), (sites, own)))

    @cached_property
    def constrain(self) -> Callable[[Any], dict[str, Any]]:
        """Sites at unconstrained draws, ``data sets × draws × size``."""
        return jax.jit(jax.vmap(jax.vmap(self.latent.constrain)))

    def ranks(
        self, sites: Mapping[str, Any], *, identified: bool, chains: bool = False, seed: int = 0
    ) -> Ranks:
        """Ranks of the true values among draws.

        Parameters
        ----------
        sites : mapping
            Latent site to ``data sets × draws × event shape``.
        identified : bool
            Rank what has no symmetries (amplitudes, intercepts, noises, linear predictors, log-likelihood), or all
            other sites.
        chains : bool
            Whether draws are autocorrelated: those of what is identified are then thinned, each quantity's by its
            effective sample size. The others are from chains whose autocorrelation does no harm.
        seed : int
            Of the breaking of ties.
        """
        true = self.constrain(self.truth[:, None])
        found = {name: value for name, value in sites.items() if name.startswith(IDENTIFIED) == identified}
        wanted = {name: true[name] for name in found}
        if identified:
            found |= self._derive(sites, self.own)
            wanted |= self._derive(true, self.own)
        names = sum((_scalars(name, value.shape[2:]) for name, value in found.items()), ())
        if not names:
            return Ranks((), np.empty((len(self.truth), 0)), np.empty((len(self.truth), 0)))
        draws, truth = (
            np.concatenate([np.asarray(v, dtype=float).reshape(*v.shape[:2], -1) for v in own.values()], axis=2)
            for own in (found, wanted)
        )
        # Parts that no draw can move, such as the corner of a correlation's Cholesky factor.
        free = np.ptp(truth, axis=(0, 1)) > 0
        draws, truth = draws[..., free], truth[:, 0, free]
        names = tuple(np.array(names, dtype=object)[free])
        ess = effective(draws) if chains else np.full(truth.shape, float(draws.shape[1]))
        steps = np.ceil(draws.shape[1] / ess) if identified else np.ones(truth.shape)
        steps = np.clip(steps, 1, max(draws.shape[1] // FEWEST, 1)).astype(int)
        ties = np.random.default_rng(seed).random(truth.shape)
        ranks = np.empty(truth.shape)
        for step in np.unique(steps):
            some = draws[:, ::step]
            below = np.sum(some < truth[:, None], axis=1) + ties * (1 + np.sum(some == truth[:, None], axis=1))
            ranks = np.where(steps == step, below / (some.shape[1] + 1), ranks)
        return Ranks(names, ranks, ess)


def effective(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of each series ``n × draws × m``, at most the number of draws; 1 where nothing moved."""
    series = np.moveaxis(draws, 1, 0)[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ess = effective_sample_size(series)
    return np.clip(np.where(np.isfinite(ess), ess, 1.0), 1.0, draws.shape[1])


def _scalars(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name of every element of an array."""
    if not shape:
        return (name,)
    return tuple(f"{name}[{', '.join(map(str, at))}]" for at in np.ndindex(*shape))
