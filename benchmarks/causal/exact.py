"""Is the exact posterior over graphs that of enumeration, are its probabilities calibrated, and what does it cost?

* 15 tasks, exact: seconds and the process's peak memory.
* 20 random tables of weights at 3, 4 and 5 tasks (25, 543 and 29,281 graphs): the largest difference of an edge's
  probability from that by enumeration.
* Simulation-based calibration over graphs: 500 graphs of 4 tasks drawn from the prior, and parameters and data from
  theirs; the expected calibration error of the 6,000 edge probabilities in ten bins of equal width.
* 40 tasks by partition Monte Carlo: seconds, and the largest R-hat of an edge.

Usage: ``python -m benchmarks.causal.exact [--graphs 500] [--seed 1000] [--tasks 40] [--out FILE.json]``. The prior
precision of `bmtl.causal.normal` was chosen with an eye on calibration with seed 0.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import bmtl
from benchmarks import record
from benchmarks.causal.problems import (
    all_graphs,
    enumerated,
    from_prior,
    linear_tasks,
    random_graph,
    random_weights,
)
from bmtl.causal import dag_posterior
from bmtl.causal.exact import ExactGraphs

REPEATS = 20
N_BINS = 10


def equality() -> list[dict[str, Any]]:
    """Largest differences from enumeration."""
    found = []
    for n_tasks in (3, 4, 5):
        graphs = all_graphs(n_tasks)
        totals, edges = [], []
        for seed in range(REPEATS):
            log_w = random_weights(n_tasks, np.random.default_rng(seed))
            total, probabilities = enumerated(graphs, log_w)
            exact = ExactGraphs(log_w)
            totals.append(abs(exact.log_total - total))
            edges.append(float(np.max(np.abs(exact.edge_probabilities() - probabilities))))
        found.append({
            "tasks": n_tasks, "graphs": len(graphs), "problems": REPEATS, "edge difference": max(edges),
            "log total difference": max(totals),
        })
    return found


def cost(n_tasks: int, seed: int) -> dict[str, Any]:
    """Seconds, peak memory, and what chains say of themselves."""
    rng = np.random.default_rng(seed)
    graph = random_graph(n_tasks, 1.0, rng)
    tasks = linear_tasks(graph, 500, rng)
    start, worked = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
        found = dag_posterior(tasks, seed=seed)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    edges = found.edges.to_numpy()
    return {
        "tasks": n_tasks, "seed": seed, "rows": 500, "method": found.method,
        "seconds": seconds, "processor seconds": worked,
        "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "edges": int(graph.sum()), "sum of squared errors of edges": float(np.sum((edges - graph) ** 2)),
        **{name: found.diagnostics[name] for name in ("r_hat", "sweeps") if name in found.diagnostics},
    }


def shown(own: dict[str, Any]) -> str:
    """Seconds in words."""
    return f"{own['seconds']:.1f} s ({own['processor seconds']:.1f} s of one core)"


def calibration(n_graphs: int, seed: int, n_tasks: int = 4, n_rows: int = 100) -> dict[str, Any]:
    """Expected calibration error of edge probabilities, and their log score."""
    graphs = all_graphs(n_tasks)
    rng = np.random.default_rng(seed)
    log_prior = bmtl.EdgePrior().densities(n_tasks).log_prior(graphs.sum(axis=(1, 2)))
    prior = np.exp(log_prior - log_prior.max())
    stated, true = [], []
    off = ~np.eye(n_tasks, dtype=bool)
    for _ in range(n_graphs):
        graph = graphs[rng.choice(len(graphs), p=prior / prior.sum())]
        stated.append(dag_posterior(from_prior(graph, n_rows, rng)).edges.to_numpy()[off])
        true.append(graph[off])
    p, y = np.concatenate(stated), np.concatenate(true).astype(float)
    which = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    bins = [
        {"stated": float(p[which == i].mean()), "true": float(y[which == i].mean()), "edges": int(np.sum(which == i))}
        for i in range(N_BINS) if np.any(which == i)
    ]
    error = sum(own["edges"] * abs(own["stated"] - own["true"]) for own in bins) / len(p)
    return {
        "graphs": n_graphs, "seed": seed, "tasks": n_tasks, "rows": n_rows, "expected calibration error": error,
        "log score": float(np.mean(np.log(np.where(y == 1, p, 1 - p).clip(1e-12)))), "bins": bins,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--graphs", type=int, default=500, help="drawn for calibration")
    parser.add_argument("--tasks", type=int, default=40, help="of the problem for chains")
    parser.add_argument("--seed", type=int, default=1000, help="of the graphs drawn for calibration")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    # First, because the peak of a process's memory is that of all it has done.
    costs = [cost(15, 0)]
    print(f"15 tasks: {shown(costs[0])}, {costs[0]['peak GiB']:.2f} GiB", flush=True)
    equal = equality()
    for own in equal:
        print(f"{own['tasks']} tasks, {own['graphs']} graphs: edges within {own['edge difference']:.1e}", flush=True)
    calibrated = calibration(options.graphs, options.seed)
    print(f"calibration error on {options.graphs} graphs: {calibrated['expected calibration error']:.4f}", flush=True)
    for own in calibrated["bins"]:
        print(f"  stated {own['stated']:.3f}  true {own['true']:.3f}  ({own['edges']} edges)")
    for seed in range(3):
        costs.append(cost(options.tasks, seed))
        own = costs[-1]
        print(f"{own['tasks']} tasks, seed {seed}: R-hat {own['r_hat']:.3f}, {shown(own)}", flush=True)
    record.write(options.out, cost=costs, equality=equal, calibration=calibrated)


if __name__ == "__main__":
    main()
