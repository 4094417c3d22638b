"""SVI and MAP on NumPyro: one compiled program for all runs (restarts, and folds), which share the cores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bmtl.data import Data, Design, take_rows
from bmtl.fitting import powers as powers_of
from bmtl.fitting.checkpoint import Marks
from bmtl.fitting.draws import Draws
from bmtl.fitting.kept import kept
from bmtl.fitting.numpyro_guide import around, draw_from, posterior
from bmtl.fitting.numpyro_latent import ONCE, Latent
from bmtl.fitting.progress import Progress
from bmtl.fitting.robust import robust
from bmtl.fitting.settings import MAP, SVI, draws_a_step, is_point, step_size, with_gains
from bmtl.fitting.settling import CHUNK, EVALUATION_DRAWS, STAGES, Settling, chunks
from bmtl.model import Model, in_trunk


def run(
    model: Model,
    design: Design,
    values: Mapping[str, np.ndarray],
    settings: SVI | MAP,
    seed: int,
    each: Sequence[Mapping[str, np.ndarray]] | None = None,
    progress: Progress | None = None,
    begin: Any = None,
) -> list[Draws]:
    """Fit by SVI or MAP.

    Parameters
    ----------
    values : mapping
        Arrays of `bmtl.data.arrays`.
    each : sequence of mapping, optional
        One fit for each: arrays that replace those of ``values`` (``mask/…`` for the training cells of a fold,
        ``y/…`` for simulated outcomes). Default: one fit, on ``values`` as they are.
    begin : optional
        The guide's parameters to start from (``Draws.guide`` of a similar fit), instead of restarts.

    Returns
    -------
    list of Draws
        One a fit: its best restart. If the ELBO of none was finite, it has `Draws.failed`.

    Raises
    ------
    ValueError
        If the settings ask for what only Pyro has.
    """
    if with_gains(settings):
        raise ValueError("optimiser='gains' runs on the engine pyro only")
    start_time = time.perf_counter()
    progress = progress or Progress(False)
    folds = each or [{name: value for name, value in values.items() if name.startswith("mask/")}]
    # Numbers of the design are arguments of the compiled program, which then serves all data of its shape.
    fixed: dict[str, Any] = {name: jnp.asarray(value) for name, value in design.priors().items()}
    fixed |= {name: jnp.asarray(value) for name, value in values.items() if name not in folds[0]}
    own: list[dict[str, Any]] = [{name: jnp.asarray(value) for name, value in fold.items()} for fold in folds]
    # ELBOs of targets with different powers are not to be compared: a run that seeks its powers is alone.
    restarts = settings.restarts if begin is None and not powers_of.seeks(settings) else 1
    if powers_of.seeks(settings):
        power = fixed.pop("power")
        own = [fold | {"power": power} for fold in own]
    svi = compiled(model, design, settings, fixed | own[0])
    starting, stepping, drawing, batches = np.asarray(jax.random.split(jax.random.PRNGKey(seed), 4))
    if begin is None:
        starts = [svi.start(jax.random.fold_in(starting, restart), fixed | own[0]) for restart in range(restarts)]
    else:
        starts = [jax.tree.map(jnp.asarray, begin)]
    runs = [
        Run(_lanes(start), _lanes(fold), _lanes(jax.random.fold_in(stepping, place * restarts + restart)))
        for place, fold in enumerate(own) for restart, start in enumerate(starts)
    ]
    masks = [[value for name, value in {**values, **fold}.items() if name.startswith("mask/")] for fold in folds]
    cells = float(sum(np.sum(value) for every in masks for value in every) / len(folds))
    settling = Settling(len(runs), cells, chunks(settings.max_steps), warm=begin is not None)
    with progress.bar(type(settings).__name__, settings.max_steps) as tick:
        ended = svi.train(runs, fixed, batches, settling, tick, marks=progress.marks)
    shape = len(own), restarts
    losses, failed = np.stack(settling.trace, axis=1).reshape(*shape, -1), settling.failed.reshape(shape)
    settled = settling.settled.reshape(shape)

    out = []
    for fold, arrays in enumerate(fixed | held for held in own):
        found = ended[fold * restarts : (fold + 1) * restarts]
        params = [_at(state.params, 0) for state in found]
        if found[0].powers is not None:
            arrays |= {"power": found[0].powers["weights"][0]}
        own_key = jax.random.fold_in(drawing, fold)
        # With common random numbers.
        elbo = np.array([svi.elbo(one, arrays, own_key) for one in params])
        elbo = np.where(failed[fold] | ~np.isfinite(elbo), -np.inf, elbo)
        best = int(np.argmax(elbo))
        sites, ratio = svi.draws(params[best], arrays, jax.random.fold_in(own_key, 1), settings.draws)
        out.append(
            Draws(
                sites={name: value[None] for name, value in sites.items()},
                trace=losses[fold],
                elbo=elbo,
                guide=jax.tree.map(np.asarray, params[best]),
                log_ratio=ratio.astype(float) if isinstance(settings, SVI) else None,
                settled=bool(settled[fold, best]),
                powers=np.asarray(arrays["power"], dtype=float) if "power" in arrays else None,
                seconds=time.perf_counter() - start_time,
            )
        )
    return out


def _where(chosen: np.ndarray, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), a, b)


def _held(state: State, over: np.ndarray) -> State:
    """With the mean of the powers over the last chunk in the place of the powers, where the first stage is over."""
    powers = state.powers
    return state._replace(powers=powers | {"weights": jnp.where(over[:, None], powers["mean"], powers["weights"])})


KEPT = 16
"""Fits whose compiled programs are kept for others of the same structure."""

_COMPILED: dict[Any, NumPyroSVI] = {}


BLOCK = 25
"""Draws that are taken from a guide at once: one program serves any number of them."""


class Run(NamedTuple):
    """One run of a compiled program, or some side by side (lanes), in the leading dimension of all.

    Attributes
    ----------
    params : pytree
        Of the guides at the start.
    own : mapping
        Arrays that replace those that all runs have in common.
    keys : array, shape (lanes, 2)
        Of the random numbers.
    """

    params: Any
    own: Any
    keys: Any


class State(NamedTuple):
    """Where a run stands.

    Attributes
    ----------
    params, adam, mean : pytree
        Of the guides, of the optimiser, and the mean of the parameters over the last chunks.
    powers : dict, optional
        ``weights`` and ``before`` of `powers.moved`, and the ``mean`` of the weights over a chunk, if they are sought.
    """

    params: Any
    adam: Any
    mean: Any
    powers: Any = None


def _at(params: Any, index: int) -> Any:
    return jax.tree.map(lambda value: value[index], params)


def _lanes(values: Any) -> Any:
    return jax.tree.map(lambda value: value[None], values)


def compiled(model: Model, design: Design, settings: SVI | MAP, arrays: Mapping[str, Any]) -> NumPyroSVI:
    """The pieces of a variational fit, those of an earlier one if model, settings and the data's structure are its."""
    # Programs do not depend on these numbers, or take any.
    like = replace(settings, restarts=1, max_steps=1)
    like = replace(like, draws=1) if isinstance(like, SVI) else like
    key = model, design.structure, like, tuple(sorted(arrays))
    return kept(_COMPILED, key, lambda: NumPyroSVI(model, design, settings, arrays), KEPT)


class NumPyroSVI:
    """The compiled pieces of a variational fit of one model and design.

    The guide is one of `bmtl.fitting.numpyro_guide` over the flat unconstrained latent vector; coordinates estimated by
    a point come first and have no spread.
    """

    def __init__(self, model: Model, design: Design, settings: SVI | MAP, arrays: Mapping[str, Any]) -> None:
        self.settings = settings
        self.n_rows = design.n_rows
        self.batch = min(settings.batch_size, design.n_rows)
        self.adam = optax.chain(robust(), optax.scale_by_adam())
        self.latent = Latent.of(model, design, arrays, partial(is_point, settings))
        self.design, self.in_trunk = design, self.latent.where(in_trunk)
        if powers_of.seeks(settings) and not self.in_trunk.any():
            raise powers_of.without_trunk(settings.weighting, model)  # type: ignore[union-attr]
        self.block, self.evaluation = (1, 1) if isinstance(settings, MAP) else (BLOCK, EVALUATION_DRAWS)
        self.start = jax.jit(self._start, compiler_options=ONCE)
        self.begin = jax.jit(jax.vmap(self._begin), compiler_options=ONCE)
        self.chunk = jax.jit(self._chunk)
        self.draw = jax.jit(partial(self._draw, draws=self.block))

    def train(
        self, runs: Sequence[Run], fixed: Any, key: Any, settling: Settling, tick: Any, pooled: bool = False,
        marks: Marks | None = None,
    ) -> list[State]:
        """Optimise all runs until they have settled, or their mean has if they are pooled, or the steps are spent.

        Returns their ends. Powers that are sought are those of the end of the first stage, mean over a chunk.
        """
        marks = marks or Marks()
        states = [self.begin(run) for run in runs]
        where = np.cumsum([0, *(len(run.keys) for run in runs)])
        places = [slice(*ends) for ends in pairwise(where)]

        def of_runs(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, where[-1])

        def reached() -> dict[str, Any]:
            return {"leaves": jax.tree.leaves(states), "settling": settling.state()}

        if (left := marks.last()) is not None:
            leaves = [jnp.asarray(value) for value in left["leaves"]]
            states = jax.tree.unflatten(jax.tree.structure(states), leaves)
            settling.restore(left["settling"])
        first = len(settling.trace)
        with ThreadPoolExecutor(os.cpu_count()) as cores:
            for number in range(first, settling.max_chunks):
                rate = of_runs(step_size(self.settings) * settling.factor).astype(np.float32)
                seeking, last = of_runs(settling.stage == 0), of_runs(settling.last).astype(np.float32)
                own, likelihood = jax.random.fold_in(key, number), np.float32(settling.likelihood)
                due = [(place, at) for place, at in enumerate(places) if np.any(rate[at])]
                calls = [
                    (states[place], runs[place], fixed, own, number, rate[at], likelihood, seeking[at], last[at])
                    for place, at in due
                ]
                # The first call compiles, with handlers that belong to the process.
                done = list((map if number == first else cores.map)(self._advance, calls))
                # Runs that have settled stay as they are.
                losses = np.zeros((where[-1], CHUNK)) + (settling.trace[-1][:, None] if number else 0.0)
                for (place, at), (state, found) in zip(due, done, strict=True):
                    states[place], losses[at] = state, found
                losses = losses.mean(axis=0, keepdims=True) if pooled else losses
                settling.look(losses)
                if powers_of.seeks(self.settings):
                    over = of_runs(settling.stage > 0) & seeking
                    states = [_held(state, over[at]) for state, at in zip(states, places, strict=True)]
                tick(CHUNK, loss=float(np.mean(losses)))
                if settling.settled.all():
                    break
                marks.leave(reached)
        # Where steps were spent before the last stage there is no mean.
        there = of_runs(settling.stage) >= len(STAGES) - 1
        return [
            state._replace(params=_where(there[at], state.mean, state.params))
            for state, at in zip(states, places, strict=True)
        ]

    def _advance(self, call: tuple[Any, ...]) -> tuple[State, np.ndarray]:
        state, losses = self.chunk(*call)
        # Waits for the result.
        return state, np.asarray(losses)

    def _start(self, key: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Guide parameters at a draw from the prior."""
        own_key = jax.random.fold_in(key, 1)
        return around(self.settings, self.latent.start(key, arrays), self.latent.n_point, own_key)

    def negative_elbo(self, params: Mapping[str, Any], key: Any, arrays: Mapping[str, Any], scale: Any = 1.0) -> Any:
        """One-draw estimate of −ELBO, with the entropy of a Gaussian guide in closed form."""
        q = posterior(params)
        free, log_q = draw_from(q, key)
        if isinstance(self.settings, MAP):
            log_q = 0.0
        elif "flow" not in params:
            log_q = -q.entropy()
        z = jnp.concatenate([params["point"], free])
        return log_q - self.latent.log_density(z, arrays, scale)

    def _objective(self, params: Mapping[str, Any], key: Any, arrays: Mapping[str, Any], scale: Any) -> Any:
        draws = draws_a_step(self.settings)
        if draws == 1:
            return self.negative_elbo(params, key, arrays, scale)
        keys = jax.random.split(key, draws)
        return jnp.mean(jax.vmap(lambda own: self.negative_elbo(params, own, arrays, scale))(keys))

    def _begin(self, run: Run) -> State:
        powers = None
        if powers_of.seeks(self.settings):
            powers = {"weights": run.own["power"], "before": jnp.full(self.design.n_tasks, jnp.nan)}
            powers["mean"] = powers["weights"]
        return State(run.params, self.adam.init(run.params), run.params, powers)

    def _chunk(
        self, state: State, run: Run, fixed: Any, key: Any, number: Any, rate: Any, likelihood: Any, seeking: Any,
        last: Any,
    ) -> Any:
        # All runs see the same rows in the same order: their objectives then differ by what they are, not by luck.
        batch_keys = jax.random.split(key, CHUNK)

        def step(own: Any, rate: Any, seeking: Any, carry: Any, keys: Any) -> Any:
            params, state, powers, total = carry
            batch_key, key = keys
            arrays = fixed | own
            if self.batch < self.n_rows:
                arrays = take_rows(arrays, jax.random.randint(batch_key, (self.batch,), 0, self.n_rows))
            if powers is not None:
                arrays = arrays | {"power": powers["weights"]}
                powers = self._sought(params, key, arrays, powers, seeking)
            scale = likelihood * self.n_rows / self.batch
            loss, gradient = jax.value_and_grad(self._objective)(params, key, arrays, scale)
            update, state = self.adam.update(gradient, state)
            params = jax.tree.map(lambda p, u: p - rate * u, params, update)
            return (params, state, powers, jax.tree.map(jnp.add, total, params)), loss

        def one(state: State, run: Run, rate: Any, seeking: Any, last: Any) -> Any:
            keys = batch_keys, jax.random.split(jax.random.fold_in(run.keys, number), CHUNK)
            powers = state.powers
            if powers is not None:
                powers = powers | {"mean": jnp.zeros_like(powers["weights"])}
            carry = state.params, state.adam, powers, jax.tree.map(jnp.zeros_like, state.params)
            (params, adam, powers, total), losses = jax.lax.scan(partial(step, run.own, rate, seeking), carry, keys)
            # Of the last chunks; as it was before them.
            mean = jax.tree.map(
                lambda mean, own: jnp.where(last > 0, mean + (own / CHUNK - mean) / jnp.maximum(last, 1.0), mean),
                state.mean, total,
            )
            return State(params, adam, mean, powers), losses

        return jax.vmap(one)(state, run._replace(params=None), rate, seeking, last)

    def _sought(self, params: Any, key: Any, arrays: Any, powers: Any, seeking: Any) -> Any:
        """Powers after a step, and their mean over the chunk so far."""
        z = jnp.concatenate([params["point"], draw_from(posterior(params), key)[0]])

        def by_task(z: Any) -> Any:
            # The log-density is linear in the powers: its derivative by one is that task's log-likelihood.
            return jax.grad(lambda power: self.latent.log_density(z, {**arrays, "power": power}))(arrays["power"])

        pulls = jax.jacrev(by_task)(z)[:, self.in_trunk]
        n = powers_of.cells(jnp, Data(self.design, arrays))
        weighting = self.settings.weighting  # type: ignore[union-attr]
        found, before = powers_of.moved(
            jnp, weighting, powers["weights"], powers["before"], by_task(z), pulls, n
        )
        weights = jnp.where(seeking, found, powers["weights"])
        return {"weights": weights, "before": before, "mean": powers["mean"] + weights / CHUNK}

    def _draw(self, params: Any, arrays: Any, key: Any, draws: int) -> tuple[dict[str, Any], Any]:
        """Guide draws of the sites, and log p − log q of each."""
        q = posterior(params)

        def one(key: Any) -> Any:
            free, log_q = draw_from(q, key)
            z = jnp.concatenate([params["point"], free])
            return self.latent.constrain(z), self.latent.log_density(z, arrays) - log_q

        return jax.lax.map(one, jax.random.split(key, draws))

    def draws(self, params: Any, arrays: Any, key: Any, n: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """``n`` draws of the sites, and log p − log q of each."""
        blocks = self._blocks(params, arrays, key, n)
        found: tuple[dict[str, np.ndarray], np.ndarray] = jax.tree.map(lambda *own: np.concatenate(own)[:n], *blocks)
        return found

    def elbo(self, params: Any, arrays: Any, key: Any) -> float:
        """Mean of log p − log q over draws."""
        return float(np.mean([ratio for _, ratio in self._blocks(params, arrays, key, self.evaluation)], dtype=float))

    def _blocks(self, params: Any, arrays: Any, key: Any, n: int) -> Iterator[Any]:
        for number in range(-(-n // self.block)):
            yield self.draw(params, arrays, jax.random.fold_in(key, number))
