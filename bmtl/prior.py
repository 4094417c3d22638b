"""What a model expects before it has seen an outcome."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from arviz_base import from_dict

from bmtl import replay, trees
from bmtl.causal.fitted import FittedDraws, predicted
from bmtl.data import arrays
from bmtl.fitting.fit import check_model
from bmtl.fitting.numpyro_latent import Latent
from bmtl.model import Model, engines, has_causes
from bmtl.tasks import Tasks


def prior_draws(model: Model, tasks: Tasks, draws: int = 500, seed: int = 0) -> dict[str, np.ndarray]:
    """Latent sites drawn from the prior, ``draws × event shape``, on the modelled scale."""
    design = replay.design_of(tasks)
    given = model.given_prior(tasks, draws, seed) if hasattr(model, "given_prior") else {}
    own = {f"given/{name}": value[0] for name, value in given.items()}
    values = {name: jnp.asarray(value) for name, value in (arrays(tasks, design) | own).items()}
    latent = Latent.of(model, design, values)
    keys = jax.random.split(jax.random.PRNGKey(seed), draws)
    found = jax.jit(jax.vmap(lambda key: latent.constrain(latent.start(key, values))))(keys)
    return {name: np.asarray(value) for name, value in found.items()} | given


def outcomes(model: Model, tasks: Tasks, sites: dict[str, np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Outcomes at draws of the sites, ``draws × cells`` of each task; where outcomes have causes, these come first."""
    if not has_causes(sites):
        return replay.replicate(model, tasks, sites, seed)
    exposure = np.ones((tasks.n_tasks, tasks.n_rows))
    for own, rows, values in zip(exposure, tasks.rows, tasks.exposure, strict=True):
        own[rows] = values
    _, new = predicted(FittedDraws.of(model, tasks, sites), tasks.Z, exposure, seed)
    return [value[:, rows] for value, rows in zip(new, tasks.rows, strict=True)]


def prior_predictive(model: Model, tasks: Tasks, draws: int = 500, seed: int = 0) -> xr.DataTree:
    """Outcomes drawn from the prior at the tasks' own inputs: does the model allow what could be, and little else?

    The prior is scaled to the data: intercepts lie where the outcomes are, and standardised outcomes have unit spread.

    Parameters
    ----------
    model : Model
        Not of a torch trunk, nor a Pyro program.
    tasks : Tasks
        If outcomes have causes, none of them is taken as set from outside.
    draws : int
    seed : int

    Returns
    -------
    DataTree
        Groups ``prior`` (latent sites on the modelled scale), ``prior_predictive`` and ``observed_data`` (one variable
        a task in the user's units, its cells along ``obs_<task>``).

    Raises
    ------
    ValueError
        If the model runs on Pyro only, or no draw is asked for.
    """
    check_model(model)
    if draws < 1:
        raise ValueError(f"draws must be ≥ 1, got {draws}")
    if "numpyro" not in engines(model):
        raise ValueError(f"prior_predictive runs on NumPyro, and this {type(model).__name__} does not")
    sites = prior_draws(model, tasks, draws, seed)
    labels = trees.variables(tasks.names)
    replicated = outcomes(model, tasks, sites, seed)
    dims, coords = trees.cells(tasks, labels)
    return from_dict(
        {
            "prior": {name: value[None] for name, value in sites.items()},
            "prior_predictive": dict(zip(labels, trees.typed(tasks, [own[None] for own in replicated]), strict=True)),
            "observed_data": dict(zip(labels, trees.typed(tasks, tasks.y), strict=True)),
        },
        dims=dims,
        coords=coords,
    )
