"""SVI and MAP on NumPyro: several runs (restarts, and folds) as one compiled program."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from numpyro.handlers import seed as seeded
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal
from numpyro.infer.initialization import init_to_sample
from numpyro.infer.util import log_density

from bmtl.data import Data, Design, take_rows
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.errors import FitError
from bmtl.fitting.draws import Draws
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import MAP, SVI
from bmtl.fitting.settling import CHUNK, EVALUATION_DRAWS, INIT_SCALE, Settling
from bmtl.model import Model

GUIDES: dict[str, Any] = {
    "point": AutoDelta,
    "mean_field": partial(AutoDiagonalNormal, init_scale=INIT_SCALE),
    "low_rank": partial(AutoLowRankMultivariateNormal, init_scale=INIT_SCALE),
    "full_rank": partial(AutoMultivariateNormal, init_scale=INIT_SCALE),
}


def run(
    model: Model,
    design: Design,
    values: Mapping[str, np.ndarray],
    settings: SVI | MAP,
    seed: int,
    masks: Sequence[Mapping[str, np.ndarray]] | None = None,
    progress: Progress | None = None,
) -> list[Draws]:
    """Fit by SVI or MAP.

    Parameters
    ----------
    values : mapping
        Arrays of `bmtl.data.arrays`.
    masks : sequence of mapping, optional
        One fit for each: arrays ``mask/…`` that replace those of ``values`` (the training cells of a fold). They
        are trained side by side. Default: one fit, on ``values`` as they are.

    Returns
    -------
    list of Draws
        One a mask: its best restart.

    Raises
    ------
    FitError
        If the ELBO is not finite.
    """
    start = time.perf_counter()
    progress = progress or Progress(False)
    stacked = masks or [{name: value for name, value in values.items() if name.startswith("mask/")}]
    fixed = {name: jnp.asarray(value) for name, value in values.items() if not name.startswith("mask/")}
    mask = {name: jnp.asarray(np.stack([own[name] for own in stacked])) for name in stacked[0]}
    runs = (len(stacked), settings.restarts)

    family = _Family(model, design, settings)
    key = jax.random.PRNGKey(seed)
    params = family.start(key, fixed | {name: value[0] for name, value in mask.items()}, runs)
    state = jax.vmap(jax.vmap(family.adam.init))(params)
    cells = float(sum(np.sum(own) for own in mask.values())) / runs[0]
    settling = Settling(runs[0] * runs[1], cells)
    with progress.bar(type(settings).__name__, settings.max_steps) as tick:
        for number in range(-(-settings.max_steps // CHUNK)):
            rate = settings.learning_rate * settling.factor
            chunk_key = jax.random.fold_in(key, number)
            params, state, losses = family.chunk(params, state, fixed, mask, chunk_key, rate)
            losses = np.asarray(losses).reshape(-1, CHUNK)
            if not np.all(np.isfinite(losses[:, -1])):
                raise FitError(f"the ELBO of {type(model).__name__} is not finite after {(number + 1) * CHUNK} steps")
            settling.look(losses)
            tick(CHUNK, loss=float(np.mean(losses)))
            if settling.settled:
                break
    trace = np.stack(settling.trace, axis=1).reshape(*runs, -1)

    out = []
    for fold in range(runs[0]):
        arrays = fixed | {name: value[fold] for name, value in mask.items()}
        own_key = jax.random.fold_in(jax.random.PRNGKey(seed), fold)
        candidates = [jax.tree.map(lambda value, at=(fold, r): value[at], params) for r in range(runs[1])]
        evaluation = EVALUATION_DRAWS if isinstance(settings, SVI) else 1
        elbo = np.array([np.mean(family.draw(own, arrays, own_key, evaluation)[1]) for own in candidates])
        sites, ratio = family.draw(candidates[int(np.argmax(elbo))], arrays, own_key, settings.draws)
        out.append(
            Draws(
                sites={name: np.asarray(value)[None] for name, value in sites.items()},
                trace=trace[fold],
                elbo=elbo,
                log_ratio=np.asarray(ratio, dtype=float) if isinstance(settings, SVI) else None,
                settled=settling.settled,
                seconds=time.perf_counter() - start,
            )
        )
    return out


class _Family:
    """The compiled pieces of a variational family for one model and design."""

    def __init__(self, model: Model, design: Design, settings: SVI | MAP) -> None:
        self.settings = settings
        self.n_rows = design.n_rows
        self.batch = min(settings.batch_size, design.n_rows)
        self.adam = optax.scale_by_adam()
        engine = NumPyroEngine()

        def program(arrays: Mapping[str, Any], scale: Any = 1.0) -> None:
            model.program(engine, Data(design, arrays, scale))

        self.program = program
        self.chunk = jax.jit(self._chunk)
        self.draw = jax.jit(self._draw, static_argnums=3)

    def start(self, key: Any, arrays: Mapping[str, Any], runs: tuple[int, int]) -> Any:
        """Unconstrained guide parameters, ``folds × restarts``; every restart starts at its own draw from the prior."""
        starts = []
        for own in jax.random.split(key, runs[1]):
            self.guide = GUIDES[self.settings.guide](self.program, init_loc_fn=init_to_sample)
            svi = numpyro.infer.SVI(self.program, self.guide, numpyro.optim.Adam(1.0), Trace_ELBO())
            starts.append(svi.optim.get_params(svi.init(own, arrays).optim_state))
            self.constrain = svi.constrain_fn
        stacked = jax.tree.map(lambda *values: jnp.stack(values), *starts)
        return jax.tree.map(lambda value: jnp.repeat(value[None], runs[0], axis=0), stacked)

    def _loss(self, params: Any, key: Any, arrays: Any) -> Any:
        scale = self.n_rows / self.batch
        return Trace_ELBO().loss(key, self.constrain(params), self.program, self.guide, arrays, scale)

    def _chunk(self, params: Any, state: Any, fixed: Any, mask: Any, key: Any, rate: Any) -> Any:
        folds, restarts = jax.tree.leaves(params)[0].shape[:2]
        # All runs see the same rows in the same order: their objectives then differ by what they are, not by luck.
        batch_keys = jax.random.split(jax.random.fold_in(key, 0), CHUNK)
        run_keys = jax.random.split(jax.random.fold_in(key, 1), (folds, restarts))

        def step(own: Any, carry: Any, keys: Any) -> Any:
            params, state = carry
            batch_key, key = keys
            arrays = fixed | own
            if self.batch < self.n_rows:
                arrays = take_rows(arrays, jax.random.randint(batch_key, (self.batch,), 0, self.n_rows))
            loss, gradient = jax.value_and_grad(self._loss)(params, key, arrays)
            update, state = self.adam.update(gradient, state)
            return (jax.tree.map(lambda p, u: p - rate * u, params, update), state), loss

        def one(params: Any, state: Any, own: Any, key: Any) -> Any:
            return jax.lax.scan(partial(step, own), (params, state), (batch_keys, jax.random.split(key, CHUNK)))

        over_restarts = jax.vmap(one, in_axes=(0, 0, None, 0))
        (params, state), losses = jax.vmap(over_restarts)(params, state, mask, run_keys)
        return params, state, losses

    def _draw(self, params: Any, arrays: Any, key: Any, draws: int) -> Any:
        """Guide draws, and log p − log q of each."""
        params = self.constrain(params)

        def one(key: Any) -> Any:
            log_q, trace = log_density(seeded(self.guide, key), (arrays,), {}, params)
            sites = {
                name: site["value"]
                for name, site in trace.items()
                if site["type"] == "sample" and not site["infer"].get("is_auxiliary")
            }
            log_p, _ = log_density(self.program, (arrays,), {}, sites)
            return sites, log_p - log_q

        return jax.lax.map(one, jax.random.split(key, draws))
