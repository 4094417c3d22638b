"""Reading the tasks' functions at posterior draws: how they relate, which inputs they use, how many they mix.

A task's function is its linear predictor up to a constant. It is read at the rows of all tasks (of many, `MOST_ROWS`
spread evenly). Of a task with a linear predictor for each label, their differences from their mean are read: the
softmax of them all does not know their common level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from bmtl import replay
from bmtl.arrangement import Plan
from bmtl.data import Data, Design, inputs_only
from bmtl.engine.replay import Replay
from bmtl.model import Model, engines, in_trunk
from bmtl.relations import Independent
from bmtl.replay import design_of
from bmtl.tasks import Tasks

MOST_ROWS = 500
"""Rows at which functions are read."""

USUAL_WIDTH = 16
"""Features for which there must be room at every row, however few tasks there are."""

ROUNDING = 1e-6
"""Relative error of linear predictors, which are float32."""

Sites = Mapping[str, np.ndarray]
Reader = Callable[[Any, Any], Any]
"""Takes an array namespace and ``draws × P × rows``: linear predictors, or their derivatives by one input."""


def relations(model: Model, tasks: Tasks, sites: Sites, prob: float = 0.89) -> pd.DataFrame:
    """How the tasks' functions relate; see `bmtl.results.Fit.relations`."""
    design = design_of(tasks)
    plan = design.plan(model.arranged(tasks.names))
    a, b = np.triu_indices(tasks.n_tasks, 1)
    grams = _read(model, design, sites, _x(tasks), _gram)
    correlation = np.concatenate([_correlations(own, plan, a, b) for own in grams])
    offer: Callable[..., Any] = getattr(getattr(model, "relation", None), "pairs", lambda *_: {})
    offered = {"together": np.full((len(plan.task_of),) * 2, np.nan)} | _means(offer, sites, plan)
    low, high = np.quantile(correlation, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    known = ~np.isnan(low)
    table = {
        "task_a": np.array(tasks.names)[a],
        "task_b": np.array(tasks.names)[b],
        "correlation": correlation.mean(axis=0),
        "correlation_low": low,
        "correlation_high": high,
        "p_negative": np.where(known, np.mean(correlation < 0, axis=0), np.nan),
    }
    width = np.bincount(plan.task_of)
    return pd.DataFrame(table | {name: _by_pair(own[None], plan, a, b)[0] / width[a] for name, own in offered.items()})


def inputs(model: Model, tasks: Tasks, sites: Sites, threshold: float = 0.1, prob: float = 0.89) -> pd.DataFrame:
    """Effects of the inputs; see `bmtl.results.Fit.inputs`."""
    if not (np.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold must be finite and ≥ 0, got {threshold}")
    design = design_of(tasks)
    plan = design.plan(model.arranged(tasks.names))
    x = _x(tasks)
    slopes = [
        np.concatenate(list(_read(model, design, sites, x, _moments, direction)))
        for direction in np.eye(x.shape[1], dtype=np.float32)
    ]
    label = [own for f in tasks.families for own in (f.labels if f.n_predictors > 1 else ("",))]
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    rows = []
    for p, t in enumerate(plan.task_of):
        for name, slope in zip(tasks.inputs, slopes, strict=True):
            effect, size = slope[:, p].T
            unit = tasks.y_scale[t]
            matters = np.mean(size > threshold * design.amplitude_scale[t])
            spread = unit * np.array([effect.mean(), *np.quantile(effect, tails), size.mean()])
            rows.append((tasks.names[t], label[p], name, *spread, matters))
    columns = ["task", "label", "input", "effect", "effect_low", "effect_high", "size", "p_matters"]
    return pd.DataFrame(rows, columns=columns)


def rank(model: Model, tasks: Tasks, sites: Sites, share: float = 0.05) -> pd.DataFrame:
    """Posterior of the effective rank; see `bmtl.results.Fit.rank`."""
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    if not hasattr(model, "trunk"):
        raise ValueError(f"{type(model).__name__} has no trunk with heads that could have a rank")
    if getattr(model, "head_widths", ()):
        raise ValueError("the heads have layers of their own: their weights are of different features, without a rank")
    squares = np.linalg.svd(_head_matrix(model, tasks, sites), compute_uv=False) ** 2
    found = np.sum(squares > share * squares.sum(axis=-1, keepdims=True), axis=-1)
    ranks, counts = np.unique(found, return_counts=True)
    return pd.DataFrame({"rank": ranks, "probability": counts / len(found)})


def _head_matrix(model: Any, tasks: Tasks, sites: Sites) -> np.ndarray:
    """Heads of the linear predictors times their amplitudes in units of the families' own, ``draws × P × features``.

    The features of several trunks stand side by side.
    """
    design = design_of(tasks)
    plan = design.plan(model.arranged(tasks.names))
    first = {name: value[:1] for name, value in sites.items() if in_trunk(name)}
    copies, _, k = replay.features(model, _x(tasks)[:1], first, plan.n_trunks).shape[-3:]
    relation = getattr(model, "relation", Independent())
    on_jax = Replay({name: jnp.asarray(value) for name, value in sites.items()})
    heads = relation.sample(on_jax, plan, design, k, model.amplitude)
    w, amplitude = (np.asarray(value) for value in (heads.w, heads.amplitude))
    size = amplitude / design.amplitude_scale * np.ones((len(w), 1))
    trunk = plan.trunk_of_head if copies > 1 else np.zeros(plan.n_heads, dtype=int)
    own = w[:, :, None] * (trunk[:, None] == np.arange(copies))[..., None]
    return size[:, plan.task_of, None] * own.reshape(len(w), plan.n_heads, -1)[:, plan.head_of]


def _correlations(gram: np.ndarray, plan: Plan, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation over rows (and linear predictors, if there are several) per draw; 0 with a constant function."""
    every = np.arange(plan.task_of[-1] + 1)
    shared, own = _by_pair(gram, plan, a, b), _by_pair(gram, plan, every, every)
    size = np.sqrt(own[:, a] * own[:, b])
    return np.divide(shared, size, out=0.0 * shared, where=size > 0)


def _by_pair(values: np.ndarray, plan: Plan, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over the linear predictors of tasks ``a`` with those of ``b``, first with first, ``draws × pairs``.

    NaN where they are not as many.
    """
    width = np.bincount(plan.task_of)
    first = np.cumsum(width) - width
    out = np.where(width[a] == width[b], np.zeros((len(values), 1)), np.nan)
    for j in range(width.max()):
        both = (j < width[a]) & (j < width[b])
        out[:, both] += values[:, first[a[both]] + j, first[b[both]] + j]
    return out


def _means(offer: Callable[..., Any], sites: Sites, plan: Plan) -> dict[str, np.ndarray]:
    """Posterior means of what a relation knows of pairs, ``P × P``; some draws at a time."""
    total = len(next(iter(sites.values())))
    step = max(1, replay.CELLS_AT_ONCE // len(plan.task_of) ** 2)
    sums: dict[str, Any] = {}
    for start in range(0, total, step):
        part = offer({name: value[start : start + step] for name, value in sites.items()}, plan)
        sums = {name: sums.get(name, 0.0) + own.sum(axis=0, dtype=float) for name, own in part.items()}
    return {name: own / total for name, own in sums.items()}


def _gram(xp: Any, eta: Any) -> Any:
    level = xp.mean(eta, axis=-1, keepdims=True)
    f = eta - level
    # A constant function differs from its mean by rounding errors, which may not pass for a function.
    f = f * (xp.abs(f) > ROUNDING * xp.abs(level))
    return f @ xp.matrix_transpose(f)


def _moments(xp: Any, slope: Any) -> Any:
    """Mean and root mean square over rows, ``draws × P × 2``."""
    return xp.stack([xp.mean(slope, axis=-1), xp.sqrt(xp.mean(slope**2, axis=-1))], axis=-1)


def _x(tasks: Tasks) -> np.ndarray:
    n = tasks.n_rows
    return tasks.Z[np.unique(np.linspace(0, n - 1, min(n, MOST_ROWS)).astype(int))].astype(np.float32)


def _read(
    model: Model, design: Design, sites: Sites, x: np.ndarray, reader: Reader, direction: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """What the reader gives of the linear predictors, or of their derivatives in a direction, some draws at a time."""
    hashable: Any = model
    run = (_on_jax if "numpyro" in engines(model) else _on_torch)(hashable, design, reader)
    total = len(next(iter(sites.values())))
    step = int(np.clip(replay.CELLS_AT_ONCE // (max(len(design.intercept_loc), USUAL_WIDTH) * len(x)), 1, total))
    for start in range(0, total, step):
        part = run({name: value[start : start + step] for name, value in sites.items()}, x, direction)
        yield np.asarray(part, dtype=float)


@lru_cache(maxsize=64)
def _on_jax(model: Any, design: Design, reader: Reader) -> Any:
    @jax.jit
    def run(draws: Mapping[str, Any], x: Any, direction: Any) -> Any:
        values = inputs_only(np.zeros(x.shape), design)
        held = {name: jnp.asarray(value) for name, value in values.items()}

        def eta(at: Any) -> Any:
            return _predictors(Replay(draws), model, Data(design, held | {"x": at}))

        return reader(jnp, eta(x) if direction is None else jax.jvp(eta, (x,), (jnp.zeros_like(x) + direction,))[1])

    return run


def _on_torch(model: Any, design: Design, reader: Reader) -> Any:
    import torch
    from pyro import validation_enabled

    from bmtl.engine.torch_replay import TorchReplay

    def run(draws: Mapping[str, Any], x: Any, direction: Any) -> Any:
        engine = TorchReplay(draws)
        held = {name: torch.tensor(value, device=engine.device) for name, value in inputs_only(x, design).items()}

        def eta(at: Any) -> Any:
            return _predictors(engine, model, Data(design, held | {"x": at}))

        with torch.no_grad(), validation_enabled(False):
            if direction is None:
                value = eta(held["x"])
            else:
                along = engine.asarray(direction).expand_as(held["x"])
                value = torch.func.jvp(eta, (held["x"],), (along,))[1]
            return reader(engine.xp, value).cpu().numpy()

    return run


def _predictors(engine: Any, model: Model, data: Data) -> Any:
    """Linear predictors at every row, ``draws × P × rows``."""
    model.program(engine, data)
    by_task = {}
    for block in data.blocks():
        eta = engine.predictor(block)
        for j, t in enumerate(block.tasks):
            if block.family.n_predictors == 1:
                by_task[t] = eta[..., j, None, :]
            else:
                own = eta[..., j, :, :]
                by_task[t] = engine.xp.matrix_transpose(own - engine.xp.mean(own, axis=-1, keepdims=True))
    return engine.xp.concat([by_task[t] for t in range(data.design.n_tasks)], axis=-2)
