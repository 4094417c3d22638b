"""SVI and MAP on NumPyro: several runs (restarts, and folds) as one compiled program."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

from bmtl.data import Data, Design, take_rows
from bmtl.fitting import powers as powers_of
from bmtl.fitting.checkpoint import Marks
from bmtl.fitting.draws import Draws
from bmtl.fitting.kept import kept
from bmtl.fitting.numpyro_flow import autoregressive, draw_from, flow
from bmtl.fitting.numpyro_latent import ONCE, Latent
from bmtl.fitting.progress import Progress
from bmtl.fitting.robust import robust
from bmtl.fitting.settings import FLOWS, MAP, RANK, SVI, draws_a_step, is_point, step_size, with_gains
from bmtl.fitting.settling import CHUNK, EVALUATION_DRAWS, INIT_SCALE, STAGES, Settling, chunks
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
        ``y/…`` for simulated outcomes). They are trained side by side. Default: one fit, on ``values`` as they are.
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
    start = time.perf_counter()
    progress = progress or Progress(False)
    stacked = each or [{name: value for name, value in values.items() if name.startswith("mask/")}]
    fixed = {name: jnp.asarray(value) for name, value in values.items() if name not in stacked[0]}
    own = {name: jnp.asarray(np.stack([run[name] for run in stacked])) for name in stacked[0]}
    # ELBOs of targets with different powers are not to be compared: a run that seeks its powers is alone.
    runs = (len(stacked), settings.restarts if begin is None and not powers_of.seeks(settings) else 1)

    # Numbers of the design are arguments of the compiled program, which then serves all data of its shape.
    fixed |= {name: jnp.asarray(value) for name, value in design.priors().items()}
    first = fixed | {name: value[0] for name, value in own.items()}
    svi = compiled(model, design, settings, first)
    key = jax.random.PRNGKey(seed)
    if begin is None:
        params = svi.start(key, runs, first)
    else:
        params = jax.tree.map(lambda value: jnp.broadcast_to(value, (*runs, *value.shape)), begin)
    observed = {name: np.asarray(value) for name, value in (fixed | own).items() if name.startswith("mask/")}
    cells = float(sum(value.sum() / (runs[0] if name in own else 1) for name, value in observed.items()))
    settling = Settling(runs[0] * runs[1], cells, chunks(settings.max_steps), warm=begin is not None)
    with progress.bar(type(settings).__name__, settings.max_steps) as tick:
        if powers_of.seeks(settings):
            own["power"] = jnp.broadcast_to(fixed.pop("power"), (runs[0], design.n_tasks))
        params, powers = svi.train(params, fixed, own, key, settling, tick, marks=progress.marks)
    if powers is not None:
        own["power"] = powers[:, 0]
    losses, failed = np.stack(settling.trace, axis=1).reshape(*runs, -1), settling.failed.reshape(runs)

    out = []
    for fold in range(runs[0]):
        arrays = fixed | _at(own, fold)
        own_key = jax.random.fold_in(jax.random.PRNGKey(seed), fold)
        restarts = _at(params, fold)
        # With common random numbers.
        elbo = np.array([float(svi.elbo(_at(restarts, own), arrays, own_key)) for own in range(runs[1])])
        elbo = np.where(failed[fold] | ~np.isfinite(elbo), -np.inf, elbo)
        best = int(np.argmax(elbo))
        sites, ratio = svi.draw(_at(restarts, best), arrays, own_key)
        out.append(
            Draws(
                sites={name: np.asarray(value)[None] for name, value in sites.items()},
                trace=losses[fold],
                elbo=elbo,
                guide=jax.tree.map(np.asarray, _at(restarts, best)),
                log_ratio=np.asarray(ratio, dtype=float) if isinstance(settings, SVI) else None,
                settled=bool(settling.settled.reshape(runs)[fold, best]),
                powers=np.asarray(arrays["power"], dtype=float) if "power" in arrays else None,
                seconds=time.perf_counter() - start,
            )
        )
    return out


def _mean(mean: Any, latest: Any, count: Any) -> Any:
    """The mean of the last ``count`` chunks from that of those before and that of the latest; as it was where 0."""
    return jax.tree.map(lambda a, b: jnp.where(count > 0, a + (b - a) / jnp.maximum(count, 1.0), a), mean, latest)


KEPT = 16
"""Fits whose compiled programs are kept for others of the same structure."""

_COMPILED: dict[Any, NumPyroSVI] = {}


def _at(params: Any, index: int) -> Any:
    return jax.tree.map(lambda value: value[index], params)


def compiled(model: Model, design: Design, settings: SVI | MAP, arrays: Mapping[str, Any]) -> NumPyroSVI:
    """The pieces of a variational fit, those of an earlier one if model, settings and the data's structure are its."""
    # Programs do not depend on the number of restarts, or take any.
    key = (model, design.structure, replace(settings, restarts=1), tuple(arrays))
    return kept(_COMPILED, key, lambda: NumPyroSVI(model, design, settings, arrays), KEPT)


class NumPyroSVI:
    """The compiled pieces of a variational fit of one model and design.

    The guide is a Gaussian over the flat unconstrained latent vector; coordinates estimated by a point come first and
    have no spread.
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
        self.initial = jax.jit(self._initials, compiler_options=ONCE)
        self.chunk = jax.jit(self._chunk)
        self.mean = jax.jit(jax.vmap(jax.vmap(_mean)))
        self.draw = jax.jit(partial(self._draw, draws=settings.draws))
        self.elbo = jax.jit(self._elbo)

    def start(self, key: Any, runs: tuple[int, int], arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Guide parameters, ``folds × restarts × …``; every restart starts at its own draw from the prior."""
        own = self.initial(jax.random.split(key, runs[1]), arrays)
        return jax.tree.map(lambda value: jnp.repeat(value[None], runs[0], axis=0), own)

    def train(
        self, params: Any, fixed: Any, each: Any, key: Any, settling: Settling, tick: Any, pooled: bool = False,
        marks: Marks | None = None,
    ) -> tuple[Any, Any]:
        """Optimise all runs until they have settled, or their mean has if they are pooled, or the steps are spent.

        Returns the guides' parameters and, if they were sought, the powers of the tasks, ``folds × restarts × T``:
        those of the end of the first stage, mean over a chunk.
        """
        marks = marks or Marks()
        settings = self.settings
        state = jax.vmap(jax.vmap(self.adam.init))(params)
        runs, mean = params["loc"].shape[:2], params
        powers = None
        if powers_of.seeks(settings):
            weights = jnp.broadcast_to(each["power"][:, None], (*runs, self.design.n_tasks))
            powers = {"weights": weights, "before": jnp.full_like(weights, jnp.nan)}

        def of_runs(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, np.prod(runs)).reshape(runs)

        def reached() -> dict[str, Any]:
            return {"leaves": jax.tree.leaves((params, state, mean, powers)), "settling": settling.state()}

        if (left := marks.last()) is not None:
            leaves = [jnp.asarray(value) for value in left["leaves"]]
            structure = jax.tree.structure((params, state, mean, powers))
            params, state, mean, powers = jax.tree.unflatten(structure, leaves)
            settling.restore(left["settling"])
        for number in range(len(settling.trace), chunks(settings.max_steps)):
            rate = jnp.asarray(of_runs(step_size(settings) * settling.factor), dtype=jnp.float32)
            own = jax.random.fold_in(key, number)
            seeking = jnp.asarray(of_runs(settling.stage == 0))
            (params, state, powers, latest), losses = self.chunk(
                params, state, powers, fixed, each, own, rate, settling.likelihood, seeking
            )
            mean = self.mean(mean, latest, jnp.asarray(of_runs(settling.last), dtype=jnp.float32))
            losses = np.asarray(losses).reshape(-1, CHUNK)
            losses = losses.mean(axis=0, keepdims=True) if pooled else losses
            settling.look(losses)
            if powers is not None:
                over = jnp.asarray(of_runs(settling.stage > 0))[..., None] & seeking[..., None]
                powers["weights"] = jnp.where(over, powers.pop("mean"), powers["weights"])
            tick(CHUNK, loss=float(np.mean(losses)))
            if settling.settled.all():
                break
            marks.leave(reached)
        # Where steps were spent before the last stage there is no mean.
        there = of_runs(settling.stage) >= len(STAGES) - 1
        ended = jax.tree.map(lambda a, b: jnp.where(there.reshape(*runs, *[1] * (a.ndim - 2)), a, b), mean, params)
        return ended, None if powers is None else powers["weights"]

    def _initials(self, keys: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
        # One after another: side by side, samplers take longer to compile than all draws to make.
        initials: dict[str, Any] = jax.lax.map(lambda key: self._initial(key, arrays), keys)
        return initials

    def _initial(self, key: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
        z = self.latent.start(key, arrays)
        free = self.latent.size - self.latent.n_point
        params = {"point": z[: self.latent.n_point], "loc": z[self.latent.n_point :]}
        if isinstance(self.settings, MAP):
            return params
        params |= {"log_scale": jnp.full(free, np.log(INIT_SCALE))}
        if self.settings.guide == "full_rank":
            params |= {"tril": jnp.zeros((free, free))}
        if self.settings.guide == "flow":
            keys = jax.random.split(jax.random.fold_in(key, 1), FLOWS)
            params |= {"flow": [autoregressive(free)[0](own, (free,))[1] for own in keys]}
        if self.settings.guide == "low_rank":
            rank = min(free, RANK)
            params |= {"factor": 0.1 * jax.random.normal(jax.random.fold_in(key, 1), (free, rank))}
        return params

    def posterior(self, params: Mapping[str, Any]) -> Any:
        """The guide's distribution over the coordinates that have one."""
        if "flow" in params:
            return flow(params)
        if "log_scale" not in params:
            return dist.Delta(params["loc"], event_dim=1)
        # All in units of each coordinate's own scale: steps that are small for one are then not large for another.
        scale = jnp.exp(params["log_scale"])
        if "tril" in params:
            unit = jnp.eye(len(scale)) + jnp.tril(params["tril"], -1)
            return dist.MultivariateNormal(params["loc"], scale_tril=scale[:, None] * unit)
        if "factor" in params:
            return dist.LowRankMultivariateNormal(params["loc"], scale[:, None] * params["factor"], scale**2)
        return dist.Normal(params["loc"], scale).to_event(1)

    def negative_elbo(self, params: Mapping[str, Any], key: Any, arrays: Mapping[str, Any], scale: Any = 1.0) -> Any:
        """One-draw estimate of −ELBO, with the entropy of a Gaussian guide in closed form."""
        q = self.posterior(params)
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

    def _chunk(
        self, params: Any, state: Any, powers: Any, fixed: Any, each: Any, key: Any, rate: Any, likelihood: Any,
        seeking: Any,
    ) -> Any:
        folds, restarts = params["loc"].shape[:2]
        # All runs see the same rows in the same order: their objectives then differ by what they are, not by luck.
        batch_keys = jax.random.split(jax.random.fold_in(key, 0), CHUNK)
        run_keys = jax.random.split(jax.random.fold_in(key, 1), (folds, restarts))

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

        def one(params: Any, state: Any, powers: Any, own: Any, key: Any, rate: Any, seeking: Any) -> Any:
            keys = batch_keys, jax.random.split(key, CHUNK)
            if powers is not None:
                powers = powers | {"mean": jnp.zeros_like(powers["weights"])}
            carry = params, state, powers, jax.tree.map(jnp.zeros_like, params)
            (params, state, powers, total), losses = jax.lax.scan(partial(step, own, rate, seeking), carry, keys)
            return (params, state, powers, jax.tree.map(lambda value: value / CHUNK, total)), losses

        over_restarts = jax.vmap(one, in_axes=(0, 0, 0, None, 0, 0, 0))
        return jax.vmap(over_restarts)(params, state, powers, each, run_keys, rate, seeking)

    def _sought(self, params: Any, key: Any, arrays: Any, powers: Any, seeking: Any) -> Any:
        """Powers after a step, and their mean over the chunk so far."""
        z = jnp.concatenate([params["point"], draw_from(self.posterior(params), key)[0]])

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
        q = self.posterior(params)

        def one(key: Any) -> Any:
            free, log_q = draw_from(q, key)
            z = jnp.concatenate([params["point"], free])
            return self.latent.constrain(z), self.latent.log_density(z, arrays) - log_q

        return jax.lax.map(one, jax.random.split(key, draws))

    def _elbo(self, params: Any, arrays: Any, key: Any) -> Any:
        """Final ELBO of a restart."""
        particles = 1 if isinstance(self.settings, MAP) else EVALUATION_DRAWS
        keys = jax.random.split(key, particles)
        return -jnp.mean(jax.lax.map(lambda own: self.negative_elbo(params, own, arrays), keys))
