"""The graphs that a model of causes is fitted under: few, drawn from their posterior, that stand for all of it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from bmtl.causal.columns import check, complete
from bmtl.causal.edge_prior import EdgePrior
from bmtl.causal.posterior import MAX_R_HAT, dag_posterior, draw_prior
from bmtl.causal.subsets import Array
from bmtl.diagnostics.convergence import COLUMNS
from bmtl.runs import Runs
from bmtl.tasks import Tasks

N_DRAWS = 4000
"""Graphs drawn, of which a few stand for all."""


@lru_cache(maxsize=64)
def explained(tasks: Tasks) -> Tasks:
    """The cells that have causes: of rows on which every task is observed, and not set from outside."""
    rows = complete(tasks)
    masks = [np.isin(own, rows) for own in tasks.rows]
    for mask, marks in zip(masks, tasks.intervened, strict=False):
        mask &= ~marks
    return tasks.keep_cells(masks)


def graph_runs(tasks: Tasks, prior: EdgePrior, most: int, seed: int) -> Runs:
    """Runs under at most so many graphs, ``edge`` (T, T), row → column.

    Constants are ``edge_probability`` (T, T) and ``graph_probability``, what the graphs that are fitted have together.
    The posterior is that of `bmtl.causal.dag_posterior`, whose errors and warnings these are.
    """
    posterior = dag_posterior(tasks, prior, seed=seed)
    graphs, counts = np.unique(posterior.draw(N_DRAWS, seed), axis=0, return_counts=True)
    kept, weights = fewer(counts / N_DRAWS, most, np.random.default_rng(seed))
    checks = None
    if posterior.method == "mcmc":
        r_hat, good = posterior.diagnostics["r_hat"], posterior.diagnostics["converged"]
        checks = pd.DataFrame([("R-hat", "edges", r_hat, f"≤ {MAX_R_HAT}", good, True)], columns=COLUMNS)
    constants = {
        "edge_probability": posterior.edges.to_numpy(), "graph_probability": np.array(counts[kept].sum() / N_DRAWS)
    }
    return Runs({"edge": graphs[kept].astype(np.float32)}, weights, {"slope": "edge"}, constants, checks)


def prior_graphs(tasks: Tasks, prior: EdgePrior, draws: int, seed: int) -> np.ndarray:
    """Graphs from the prior, (draws, T, T)."""
    check(tasks)
    return draw_prior(prior, tasks.names, draws, seed).astype(np.float32)


def fewer(weights: Array, most: int, rng: np.random.Generator) -> tuple[np.ndarray, Array]:
    """At most so many positions with weights that are those given in expectation, and as near to them as can be.

    Those of large weight are kept with it, the others are drawn, each in proportion to its weight, and share theirs
    alike (Fearnhead & Clifford, "On-line inference for hidden Markov models via particle filters", Journal of the
    Royal Statistical Society B, 2003).

    Parameters
    ----------
    weights : (n,) array
        Positive, of sum 1.
    most : int
        ≥ 1.
    """
    if len(weights) <= most:
        return np.arange(len(weights)), weights
    order = np.argsort(-weights, kind="stable")
    ahead = np.concatenate([[0.0], np.cumsum(weights[order])])[:most]
    # The first k are kept if what is left, shared by the others, is a share that the next does not reach.
    share = (1.0 - ahead) / (most - np.arange(most))
    k = int(np.argmax(weights[order[:most]] < share))
    rest, u = order[k:], rng.random()
    drawn = np.searchsorted(np.cumsum(weights[rest]), (np.arange(most - k) + u) * share[k])
    found = np.concatenate([order[:k], rest[drawn.clip(max=len(rest) - 1)]])
    return found, np.concatenate([weights[order[:k]], np.full(most - k, share[k])])
