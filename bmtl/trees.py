"""Fits as ArviZ trees."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from arviz_base import from_dict

from bmtl import replay, stores, versions
from bmtl.model import has_causes, specification
from bmtl.trunks import Identity

if TYPE_CHECKING:
    from bmtl.results import Fit
    from bmtl.tasks import Tasks

RESERVED = frozenset({
    "chain", "draw", "sample", "pred_id", "task", "row", "input", "inputs", "head", "head_of", "feature", "cell",
    "intercept", "amplitude", "noise", "predictor", "edge", "slope", "cause", "effect",
})
"""Names that ArviZ or this tree use for dimensions and variables; a task's variable must not be called so."""

RESERVED_START = ("obs_", "noise_", "trunk_", "head_", "category_")
RESERVED_END = ("_task", "_gap")


PREDICTIVE_CELLS = 5_000_000
"""Replicated outcomes kept, over all draws: enough for any predictive check, and they are slow to draw."""

LARGEST = 2.0**62
"""Replicates from here on are no integers of 64 bits."""

LIKELIHOOD_CELLS = 500_000_000
"""Log-likelihoods kept, over all draws: 2 GB. Of more cells the tree has none, and LOO reads a sample of them."""


def variables(names: Sequence[str]) -> list[str]:
    """Names of the tasks' variables: the tasks' own, distinct and safe where netCDF or ArviZ would misread them."""
    out: list[str] = []
    for name in names:
        safe = name.replace("/", "_per_").strip() or "_"
        if safe in RESERVED or safe.startswith(RESERVED_START) or safe.endswith(RESERVED_END) or not safe.strip("."):
            safe = f"task_{safe}_"
        while safe in out:
            safe += "_"
        out.append(safe)
    return out


def cells(tasks: Tasks, labels: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Dimensions and coordinates of variables that hold each task's observed cells."""
    coords = {f"obs_{label}": rows for label, rows in zip(labels, tasks.rows, strict=True)}
    return {label: [f"obs_{label}"] for label in labels}, coords


def build(fit: Fit) -> xr.DataTree:
    """The tree described in `Fit.data`."""
    tasks, draws = fit.tasks, fit.draws
    design = replay.design_of(tasks)
    labels = variables(tasks.names)
    coords: dict[str, Any] = {"task": list(tasks.names), "input": list(tasks.inputs)}
    dims: dict[str, list[str]] = {"intercept": ["task"], "amplitude": ["task"], "head": ["head_of", "feature"]}
    predictors = _predictors(tasks)
    if len(predictors) > tasks.n_tasks:
        dims["intercept"], coords["predictor"] = ["predictor"], predictors
    heads = design.plan(fit.arrangement).head_of
    coords["head_of"] = [
        " = ".join(name for name, own in zip(predictors, heads, strict=True) if own == h)
        for h in range(heads.max() + 1)
    ]
    # Relations may hold other coefficients than those of the features.
    width = draws.sites["head"].shape[-1] if "head" in draws.sites else 0
    if isinstance(getattr(fit.model, "trunk", None), Identity) and width == len(tasks.inputs):
        coords["feature"] = list(tasks.inputs)
    posterior = dict(draws.sites)
    for block, members in design.groups.items():
        if f"noise_{block}" in posterior and posterior[f"noise_{block}"].shape[2] == len(members):
            vector = [f"{block}_gap"] * design.families[members[0]].noise_dims
            dims[f"noise_{block}"] = [f"{block}_task", *vector]
            coords[f"{block}_task"] = [tasks.names[t] for t in members]
    noises = {name: value for name, value in fit.noise.items() if value.ndim == 2}
    if noises:
        posterior["noise"] = np.stack(list(noises.values()), axis=-1)
        dims["noise"] = ["noise_task"]
        coords["noise_task"] = list(noises)
    if has_causes(posterior):
        dims |= {name: ["cause", "effect"] for name in ("edge", "slope", "edge_probability")}
        coords |= {"cause": list(tasks.names), "effect": list(tasks.names)}
    own_dims, own_coords = cells(fit.explained, labels)
    dims, coords = dims | own_dims, coords | own_coords
    chains, n_draws = draws.shape
    kept = int(np.clip(PREDICTIVE_CELLS // (int(np.sum(fit.explained.n_cells)) * chains), 1, n_draws))
    some = np.linspace(0, n_draws - 1, kept).astype(int)
    flat = {name: value[:, some].reshape(-1, *value.shape[2:]) for name, value in draws.sites.items()}
    replicated = [value.reshape(chains, kept, -1) for value in replay.replicate(fit.model, tasks, flat, fit.seed)]
    dims["inputs"] = ["row", "input"]
    coords["row"] = np.arange(tasks.n_rows)
    groups: dict[str, dict[str, Any]] = {
        "posterior": posterior,
        "posterior_predictive": dict(zip(labels, typed(fit.explained, replicated), strict=True)),
        "observed_data": dict(zip(labels, typed(fit.explained, fit.explained.y), strict=True)),
        "constant_data": {"inputs": tasks.X, **draws.constants},
    }
    if chains * n_draws * int(np.sum(fit.explained.n_cells)) <= LIKELIHOOD_CELLS:
        groups["log_likelihood"] = dict(zip(labels, fit.log_likelihood, strict=True))
    if draws.stats:
        groups["sample_stats"] = dict(draws.stats)
    tree = from_dict(groups, dims=dims, coords=coords, attrs={"/": attributes(fit)})
    _name_codes(tree, tasks, ("observed_data", "posterior_predictive"))
    if draws.elbo is not None and draws.trace is not None:
        tree["optimisation"] = xr.DataTree(
            xr.Dataset({"loss": (("restart", "chunk"), draws.trace), "elbo": (("restart",), draws.elbo)})
        )
    if draws.log_ratio is not None:
        tree["sample_stats"] = xr.DataTree(
            xr.Dataset({"log_ratio": (("chain", "draw"), draws.log_ratio.reshape(draws.shape))})
        )
    return tree


def predicted(
    tasks: Tasks, means: Sequence[np.ndarray], new: Sequence[np.ndarray], shape: tuple[int, int]
) -> xr.DataTree:
    """The tree described in `Fit.predict`, from what `replay.predict` gives and the numbers of chains and draws."""
    names = variables(tasks.names)
    groups: dict[str, dict[str, np.ndarray]] = {
        group: {name: value.reshape(*shape, *value.shape[1:]) for name, value in zip(names, values, strict=True)}
        for group, values in (("mean", means), ("predictions", new))
    }
    rows = {name: ["row"] for name in names}
    labelled = {name: own.labels for name, own in zip(names, tasks.families, strict=True) if own.labels}
    dims = rows | {name: ["row", f"category_{name}"] for name in labelled}
    coords: dict[str, Any] = {f"category_{name}": list(labels) for name, labels in labelled.items()}
    tree = from_dict(groups, dims=dims, pred_dims=rows, coords=coords, sample_dims=["chain", "draw"])
    _name_codes(tree, tasks, ("predictions",))
    return tree


def typed(tasks: Tasks, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outcomes of each task, those of discrete families as integers: ArviZ tells counts by their type.

    Replicates that overflow stay what they are.
    """
    return [
        own.astype(np.int64) if not family.valid(np.array([0.5])).any() and np.all(np.abs(own) < LARGEST) else own
        for family, own in zip(tasks.families, values, strict=True)
    ]


def likelihood_room(fit: Fit) -> xr.DataTree:
    """The group ``log_likelihood`` of a tree before its values are there."""
    labels = variables(fit.tasks.names)
    dims, coords = cells(fit.explained, labels)
    shapes = {label: (*fit.draws.shape, n) for label, n in zip(labels, fit.explained.n_cells, strict=True)}
    group = {label: stores.blank(shape) for label, shape in shapes.items()}
    return from_dict({"log_likelihood": group}, dims=dims, coords=coords)


def store_predicted(path: Path, tasks: Tasks, parts: Iterable[Any], rows: int, shape: tuple[int, int]) -> xr.DataTree:
    """The tree `predicted` in a zarr store, from what `replay.predict_parts` gives of so many rows."""
    n, names = shape[0] * shape[1], variables(tasks.names)
    means = [stores.blank((n, *replay.mean_shape(own, rows))) for own in tasks.families]
    room = predicted(tasks, means, [stores.blank((n, rows))] * tasks.n_tasks, shape)
    each = (
        (part, f"{group}/{names[t]}", value)
        for part, t, *both in parts for group, value in zip(("mean", "predictions"), both, strict=True)
    )
    stores.write(path, xr.DataTree(xr.Dataset(attrs=room.attrs)), room, each)
    return stores.open_store(path)


def _predictors(tasks: Tasks) -> list[str]:
    """A name for each linear predictor: the task's, with the category where there is one for each."""
    return [
        own
        for name, family in zip(tasks.names, tasks.families, strict=True)
        for own in ([f"{name}[{label}]" for label in family.labels] if family.n_predictors > 1 else [name])
    ]


def _name_codes(tree: xr.DataTree, tasks: Tasks, groups: Sequence[str]) -> None:
    """Give variables of codes the labels they stand for, as the attribute ``labels``."""
    for name, family in zip(variables(tasks.names), tasks.families, strict=True):
        for group in groups if family.labels else ():
            tree[group][name].attrs["labels"] = list(family.labels)


def attributes(fit: Fit) -> dict[str, Any]:
    """What produced the fit, as flat attributes."""
    return {
        "creation_library": "bmtl",
        "model": json.dumps(specification(fit.model)),
        "method": fit.method,
        "settings": json.dumps(specification(fit.settings)),
        "engine": fit.engine,
        "device": fit.device,
        "seed": fit.seed,
        "seconds": fit.draws.seconds,
        "settled": int(fit.draws.settled),
        "added": json.dumps(fit.added),
        "target": fit.target,
        "powers": json.dumps(fit.powers),
        "versions": json.dumps(versions.installed()),
    }
