"""Fits in netCDF files and zarr stores: arrays and JSON, nothing executable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bmtl import noise, relations, replay, stores, trees, trunks
from bmtl._files import replacing
from bmtl.arrangement import Arrangement
from bmtl.causal.edge_prior import EdgePrior
from bmtl.diagnostics.convergence import COLUMNS
from bmtl.fitting.draws import Draws
from bmtl.fitting.settings import METHODS
from bmtl.model import specification
from bmtl.results import Fit
from bmtl.tasks import Tasks

FORMAT = 1
DERIVED = "noise"
"""The one variable of the posterior group that is not a latent site."""
INPUTS = "inputs"
"""The one constant that is the tasks' own."""

LIKELIHOOD = "log_likelihood"
READ = ("saved_tasks", "saved_checks", "posterior", "sample_stats", "optimisation", "constant_data")
"""Groups that a fit is made of; the others are computed from it."""

PARTS = {
    name: getattr(module, name)
    for module in (noise, relations, trunks)
    for name in module.__all__
    if isinstance(getattr(module, name), type)
} | {"Arrangement": Arrangement, "EdgePrior": EdgePrior} | {kind.__name__: kind for kind in METHODS.values()}
"""Classes a saved specification may name, besides the models that installed packages announce as entry points."""


def save(fit: Fit, path: str | Path) -> None:
    """Write a fit; see `Fit.save`."""
    path = Path(path)
    meta, arrays = fit.tasks.spec()
    root = xr.Dataset(attrs=trees.attributes(fit) | {"bmtl_format": FORMAT, "tasks": json.dumps(meta)})
    tree = xr.DataTree(root, children={"saved_tasks": xr.DataTree(_dataset(arrays))})
    for name, node in fit.data.children.items():
        tree[name] = node
    if fit.draws.checked is not None:
        tree["saved_checks"] = xr.DataTree(xr.Dataset.from_dataframe(fit.draws.checked))
    if stores.is_store(path):
        stores.write(path, tree, *(() if LIKELIHOOD in tree.children else _likelihood(fit)))
        return
    with replacing(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf")


def _likelihood(fit: Fit) -> tuple[xr.DataTree, stores.Parts]:
    """Room for the log-likelihoods that are too many for the tree, and what goes there."""
    labels = trees.variables(fit.tasks.names)
    parts = replay.log_likelihood_parts(fit.model, fit.tasks, fit.flat)
    return trees.likelihood_room(fit), ((part, f"{LIKELIHOOD}/{labels[t]}", value) for part, t, value in parts)


def load(path: str | Path, net: Any = None, program: Any = None) -> Fit:
    """Read a fit; see `bmtl.load`."""
    if not Path(path).exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with _opened(Path(path)) as whole:
            children = {name: node for name, node in whole.children.items() if name in READ}
            tree = xr.DataTree(whole.to_dataset(), children=children).load()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a fit saved by bmtl: {error}") from error
    if tree.attrs.get("bmtl_format") != FORMAT:
        raise ValueError(f"{path} is not a fit saved by bmtl (format {FORMAT})")
    try:
        return _fit(tree, net, program)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a fit saved by bmtl, or was changed: {error}") from error


def _opened(path: Path) -> xr.DataTree:
    if stores.is_store(path):
        return stores.open_store(path)
    # phony_dims: dimensions that a foreign HDF5 file does not name.
    return xr.open_datatree(path, engine="h5netcdf", phony_dims="sort")


def _fit(tree: xr.DataTree, net: Any, program: Any) -> Fit:
    attrs = tree.attrs
    stats = _arrays_of(tree, "sample_stats")
    ratio = stats.pop("log_ratio", None)
    run = _arrays_of(tree, "optimisation")
    draws = Draws(
        sites={name: value for name, value in _arrays_of(tree, "posterior").items() if name != DERIVED},
        stats=stats,
        trace=run.get("loss"),
        elbo=run.get("elbo"),
        log_ratio=None if ratio is None else ratio.ravel(),
        settled=bool(attrs["settled"]),
        seconds=float(attrs["seconds"]),
        constants={name: value for name, value in _arrays_of(tree, "constant_data").items() if name != INPUTS},
        powers=np.array(list(saved.values())) if (saved := json.loads(attrs.get("powers", "{}"))) else None,
        checked=tree["saved_checks"].to_dataset().to_dataframe()[COLUMNS] if "saved_checks" in tree.children else None,
    )
    return Fit(
        model=_model(json.loads(attrs["model"]), net, program),
        tasks=Tasks.from_spec(json.loads(attrs["tasks"]), _arrays(tree["saved_tasks"])),
        settings=restore(json.loads(attrs["settings"])),
        engine=str(attrs["engine"]),
        device=str(attrs["device"]),
        seed=int(attrs["seed"]),
        draws=draws,
        added=tuple(json.loads(attrs.get("added", "[]"))),
    )


def _model(saved: Mapping[str, Any], net: Any, program: Any) -> Any:
    """The model of a fit; that of a program of one's own only if the program is given, for a file cannot name it."""
    name = saved.get("fields", {}).get("function")
    if saved["class"] != "FromProgram" or not isinstance(name, str):
        return restore(saved, net)
    if program is None:
        raise ValueError(f"the saved fit was made by the program {name}: give it, bmtl.load(path, program=...)")
    others = {key: restore(value) for key, value in saved["fields"].items() if key != "function"}
    made = model_class("FromProgram")(program, **others)
    if (given := specification(made)["fields"]["function"]) != name:
        raise ValueError(f"the saved fit was made by the program {name}, not by {given}")
    return made


def restore(saved: Any, net: Any = None) -> Any:
    """The object a `bmtl.model.specification` describes.

    Parameters
    ----------
    net : torch.nn.Module, optional
        Stands for the fingerprint of one.

    Raises
    ------
    ValueError
        If it names a class that is neither one of bmtl's parts nor an installed model, or the net is missing or
        another.
    """
    if isinstance(saved, list):
        return tuple(restore(value, net) for value in saved)
    if not isinstance(saved, Mapping):
        return saved
    name = saved["class"]
    if name == "Arrangement":
        return Arrangement.from_json(dict(saved))
    if name == "Module":
        return _module(saved["fields"], net)
    kind = PARTS.get(name) or _weighting(name) or model_class(name)
    return kind(**{key: restore(value, net) for key, value in saved["fields"].items()})


def _weighting(name: str) -> Any:
    """The weighting of that name, if it is one of a fit's; torch is loaded for it alone."""
    if name not in ("GradNorm", "Static"):
        return None
    from bmtl.training import weightings

    return getattr(weightings, name)


def model_class(name: str) -> Any:
    """The model of that name, of those that installed packages announce as entry points.

    Raises
    ------
    ValueError
        If none is called so.
    """
    known = {entry.name: entry for entry in entry_points(group="bmtl.models")}
    if name not in known:
        raise ValueError(f"the model {name!r} is not installed; installed: {', '.join(sorted(known))}")
    return known[name].load()


def _module(saved: Mapping[str, Any], net: Any) -> trunks.Module:
    """The trunk of a torch module, which a file describes and does not hold."""
    if net is None:
        raise ValueError("the trunk of the saved fit is a torch module: give it, bmtl.load(path, net=...)")
    trunk = trunks.Module(net, **{key: restore(value) for key, value in saved.items() if key != "net"})
    trunk.fits(saved["net"])
    return trunk


def _arrays_of(tree: xr.DataTree, group: str) -> dict[str, np.ndarray]:
    """Variables of a group, none if the tree has no such group."""
    found = tree.children.get(group, xr.DataTree())
    return {str(name): value.values for name, value in found.data_vars.items()}


def _dataset(arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    out = xr.Dataset()
    for number, (name, value) in enumerate(arrays.items()):
        array = np.asarray(value)
        dims = tuple(f"dim_{number}_{axis}" for axis in range(array.ndim))
        out[f"v{number}"] = xr.DataArray(array, dims=dims, attrs={"name": name})
    return out


def _arrays(node: Any) -> dict[str, np.ndarray]:
    return {str(value.attrs["name"]): value.values for value in node.data_vars.values()}
