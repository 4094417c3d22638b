"""Reading a fitted model: linear predictors, likelihoods, predictions and weights at posterior draws.

All of it runs the program again at the draws, on JAX whichever engine fitted them, or on torch where JAX cannot run
the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from bmtl.data import Block, Data, Design, arrays, inputs_only, take_rows
from bmtl.engine.replay import Replay
from bmtl.families import Family
from bmtl.model import Model, engines, explained
from bmtl.tasks import Tasks

CELLS_AT_ONCE = 4_000_000
"""Draws × linear predictors held in memory at a time."""

Reader = Callable[[Any, Block, Any], Any]
"""Takes engine, block and a random key; gives an array with draws in front. The engine holds what was replayed."""


def read(
    model: Model, design: Design, values: Mapping[str, np.ndarray], sites: Mapping[str, np.ndarray], reader: Reader,
    seed: int = 0,
) -> Iterator[tuple[slice, Block, np.ndarray]]:
    """Apply ``reader`` to every block, a slice of the draws at a time.

    Parameters
    ----------
    sites : mapping
        Latent site to array, ``draws × event shape``.

    Yields
    ------
    slice, Block, ndarray
        Which draws, which block, and what the reader gave for them.
    """
    total = len(next(iter(sites.values())))
    width = 1 if "task" in values and _one_head_a_row(model, design) else design.n_tasks
    step = int(np.clip(CELLS_AT_ONCE // max(width * len(values["x"]), 1), 1, total))
    play = (_on_jax if "numpyro" in engines(model) else _on_torch)(model, design, values, reader)
    blocks = list(Data(design, values).blocks())
    for start in range(0, total, step):
        part = slice(start, min(start + step, total))
        found = play({name: value[part] for name, value in sites.items()}, seed + start)
        for block, value in zip(blocks, found, strict=True):
            yield part, block, np.asarray(value)


def _one_head_a_row(model: Any, design: Design) -> bool:
    """Whether `bmtl.model.functions` computes at each row of the long layout the head of its own task alone."""
    apart = any(getattr(model, name, ()) for name in ("head_widths", "inputs"))
    return hasattr(model, "trunk") and not apart and design.plan(model.arranged(design.names)).n_trunks == 1


Play = Callable[[Mapping[str, np.ndarray], int], list[Any]]
"""Takes draws and a seed; gives what the reader makes of each block."""


def _on_jax(model: Any, design: Design, values: Mapping[str, np.ndarray], reader: Reader) -> Play:
    held = {name: jnp.asarray(value) for name, value in {**values, **design.priors()}.items()}
    run = _compiled(model, _Shape(design.structure, design), reader)
    return lambda draws, seed: run(draws, held, jax.random.PRNGKey(seed))


def _on_torch(model: Model, design: Design, values: Mapping[str, np.ndarray], reader: Reader) -> Play:
    import torch
    from pyro import validation_enabled

    from bmtl.engine.torch_replay import TorchReplay

    def play(draws: Mapping[str, np.ndarray], seed: int) -> list[Any]:
        engine = TorchReplay(draws)
        data = Data(design, {name: torch.tensor(value, device=engine.device) for name, value in values.items()})
        with torch.no_grad(), torch.random.fork_rng(), validation_enabled(False):
            torch.manual_seed(seed)
            model.program(engine, data)
            return [reader(engine, block, None).cpu().numpy() for block in data.blocks()]

    return play


@dataclass(frozen=True)
class _Shape:
    """A design that is equal to those of the same structure: its numbers come with the data."""

    structure: tuple[Any, ...]
    design: Design = field(compare=False)


@lru_cache(maxsize=64)
def _compiled(model: Any, shape: _Shape, reader: Reader) -> Any:
    """The replay of one model, compiled once for all the draws and folds it is read at."""

    @jax.jit
    def run(draws: Mapping[str, Any], held: Mapping[str, Any], key: Any) -> list[Any]:
        engine = Replay(draws)
        data = Data(shape.design.given(held), held)
        model.program(engine, data)
        return [
            reader(engine, block, jax.random.fold_in(key, number)) for number, block in enumerate(data.blocks())
        ]

    return run


@lru_cache(maxsize=64)
def design_of(tasks: Tasks) -> Design:
    """`Design.of`, the same object for the same tasks: what is compiled for one is kept."""
    return Design.of(tasks)


def _log_prob(engine: Any, block: Block, key: Any) -> Any:  # noqa: ARG001
    return engine.outcome(block).log_prob(block.y)


def _new(engine: Any, block: Block, key: Any) -> Any:
    return engine.new(block, key)


def _fisher(engine: Any, block: Block, key: Any) -> Any:  # noqa: ARG001
    return engine.weight(block)


def _eta(engine: Any, block: Block, key: Any) -> Any:  # noqa: ARG001
    return block.family.identified(engine.xp, engine.predictor(block), engine.noise[block.name])


def _mean_and_new(engine: Any, block: Block, key: Any) -> Any:
    """Mean outcome, or the probability of each label, and after it a new outcome, in the last dimension."""
    xp = engine.xp
    mean = engine.mean(block)
    mean = mean if block.family.labels else mean[..., None]
    new = xp.astype(engine.new(block, key), mean.dtype)[..., None]
    return xp.concat([xp.broadcast_to(mean, (*new.shape[:-1], mean.shape[-1])), new], axis=-1)


def features(model: Any, x: np.ndarray, sites: Mapping[str, np.ndarray], copies: int) -> np.ndarray:
    """Features of standardised inputs ``x`` at draws of the trunk's sites, ``draws × copies or 1 × rows × k``.

    Without sites there is one draw.
    """
    if "numpyro" in engines(model):
        on_jax = Replay({name: jnp.asarray(value) for name, value in sites.items()})
        found = np.asarray(model.trunk.sample(on_jax, on_jax.asarray(x), copies))
    else:
        import torch

        from bmtl.engine.torch_replay import TorchReplay

        on_torch = TorchReplay(sites)
        with torch.no_grad():
            found = model.trunk.sample(on_torch, on_torch.asarray(x), copies).cpu().numpy()
    return found if sites else found[None]


def log_likelihood(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], rows: np.ndarray | None = None,
    fitted: Tasks | None = None,
) -> list[np.ndarray]:
    """Log-likelihood of every observed cell (at some rows) in the user's units, ``draws × cells`` for each task.

    Parameters
    ----------
    fitted : Tasks, optional
        What was fitted, if these are other cells: it is they that the priors were set at.
    """
    found = _per_task(model, tasks, sites, _log_prob, rows=rows, fitted=fitted)
    return [value - np.float32(np.log(unit)) for value, unit in zip(found, tasks.y_scale, strict=True)]


def log_likelihood_parts(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray]
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """`log_likelihood`, some draws at a time: which draws, which task, and ``draws × cells``."""
    for part, t, value in _slices(model, tasks, sites, _log_prob):
        yield part, t, value - np.float32(np.log(tasks.y_scale[t]))


def log_predictive(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], rows: np.ndarray | None = None,
    fitted: Tasks | None = None,
) -> list[np.ndarray]:
    """Log predictive density of each task's observed cells (at some rows), averaged over the draws.

    Parameters
    ----------
    rows : ndarray of int, optional
        Ascending.
    fitted : Tasks, optional
        As in `log_likelihood`.

    Returns
    -------
    list of ndarray, one a task, shape (cells at these rows,)
        Nats, in the user's units.
    """
    total = len(next(iter(sites.values())))
    out: dict[int, np.ndarray] = {}
    # A slice of the draws at a time: of many cells all draws would not fit into memory.
    for _, t, own in _slices(model, tasks, sites, _log_prob, rows=rows, fitted=fitted):
        level = logsumexp(own.astype(float), axis=0)
        out[t] = np.logaddexp(out[t], level) if t in out else level
    return [out[t] - np.log(total * unit) for t, unit in enumerate(tasks.y_scale)]


def replicate(model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], seed: int) -> list[np.ndarray]:
    """Replicated outcomes of every observed cell in the user's units, ``draws × cells`` for each task."""
    found = _per_task(model, tasks, sites, _new, seed)
    return [_in_units(tasks, t, value) for t, value in enumerate(found)]


def fisher_information(model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Expected Fisher information of each cell's outcome about its linear predictor, ``draws × cells`` a task."""
    found = _per_task(model, tasks, sites, _fisher)
    return [value / unit**2 for value, unit in zip(found, tasks.y_scale, strict=True)]


def mean_information(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], groups: Sequence[Sequence[np.ndarray]]
) -> list[list[np.ndarray]]:
    """Means of `fisher_information` over groups of each task's cells (masks of at least one), ``draws`` each."""
    total = len(next(iter(sites.values())))
    out = [[np.empty(total) for _ in own] for own in groups]
    for part, t, value in _slices(model, tasks, sites, _fisher):
        for mean, cells in zip(out[t], groups[t], strict=True):
            mean[part] = value[:, cells].mean(axis=1, dtype=float) / tasks.y_scale[t] ** 2
    return out


def linear_predictor(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], fitted: Tasks | None = None
) -> list[np.ndarray]:
    """Linear predictor of every observed cell on the modelled scale, ``draws × cells`` for each task.

    Of a categorical task log probabilities, ``draws × cells × categories``: all that outcomes say of its predictors.
    ``fitted`` is as in `log_likelihood`.
    """
    return _per_task(model, tasks, sites, _eta, fitted=fitted)


def predictors_at(model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Linear predictors, one a task, at standardised inputs ``x`` and on the modelled scale, ``draws × T × n``."""
    design = design_of(tasks)
    found = np.empty((len(next(iter(sites.values()))), tasks.n_tasks, len(x)))
    for part, block, value in read(model, design, inputs_only(x, design), sites, _eta):
        found[part, block.tasks] = value
    return found


def predict(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], x: np.ndarray, exposure: Any, seed: int,
    group: np.ndarray | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Mean outcome and a new outcome at standardised inputs ``x``, both ``draws × rows`` for each task.

    The mean of an outcome with labels is the probability of each, ``draws × rows × labels``.

    Parameters
    ----------
    exposure : float or array, shape (rows,) or (tasks, rows)
    group : ndarray of int, shape (rows,), optional
        Noise group of each row.
    """
    total = len(next(iter(sites.values())))
    new = [np.empty((total, len(x)), dtype=np.float32) for _ in tasks.families]
    means = [np.empty((total, *mean_shape(own, len(x))), dtype=np.float32) for own in tasks.families]
    for part, t, *found in predict_parts(model, tasks, sites, x, exposure, seed, group):
        means[t][part], new[t][part] = found
    return means, new


def mean_shape(family: Family, rows: int) -> tuple[int, ...]:
    """Shape of the mean of a family's outcomes at a draw: rows, and labels if it has them."""
    return (rows, len(family.labels)) if family.labels else (rows,)


def predict_parts(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], x: np.ndarray, exposure: Any, seed: int,
    group: np.ndarray | None = None,
) -> Iterator[tuple[slice, int, np.ndarray, np.ndarray]]:
    """`predict`, some draws at a time: which draws, which task, and mean and new outcomes, ``draws × rows``."""
    design = design_of(tasks)
    for part, block, value in read(model, design, inputs_only(x, design, exposure, group), sites, _mean_and_new, seed):
        for j, t in enumerate(block.tasks):
            own = _in_units(tasks, t, value[:, j])
            yield part, int(t), own[..., :-1] if block.family.labels else own[..., 0], own[..., -1]


def _in_units(tasks: Tasks, t: int, value: np.ndarray) -> np.ndarray:
    return value * np.float32(tasks.y_scale[t]) + np.float32(tasks.y_centre[t])


def _per_task(
    model: Model, tasks: Tasks, sites: Mapping[str, np.ndarray], *arguments: Any, **more: Any
) -> list[np.ndarray]:
    """What a reader gives at each task's cells, ``draws × cells × …``; arguments as `_slices`."""
    total = len(next(iter(sites.values())))
    out: dict[int, np.ndarray] = {}
    for part, t, own in _slices(model, tasks, sites, *arguments, **more):
        out.setdefault(t, np.empty((total, *own.shape[1:]), dtype=np.float32))[part] = own
    return [out[t] for t in range(tasks.n_tasks)]


def _slices(
    model: Model,
    tasks: Tasks,
    sites: Mapping[str, np.ndarray],
    reader: Reader,
    seed: int = 0,
    rows: np.ndarray | None = None,
    fitted: Tasks | None = None,
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """What the reader gives at each task's cells that the model explains (at some rows), a slice of draws at a time.

    Yields
    ------
    slice, int, ndarray
        Which draws, which task, and ``draws × cells × …``.
    """
    design = design_of(tasks) if fitted is None else replace(design_of(fitted), n_rows=tasks.n_rows)
    values = arrays(tasks, design)
    at = list(explained(model, tasks).rows)
    if rows is not None:
        values = take_rows(values, rows)
        at = [np.searchsorted(rows, own[np.isin(own, rows)]) for own in at]
    for part, block, value in read(model, design, values, sites, reader, seed):
        for j, t in enumerate(block.tasks):
            yield part, int(t), (value[:, j] if design.layout == "wide" else value)[:, at[t]]
