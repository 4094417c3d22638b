"""Who knows best which task causes which? `bmtl.causal` beside other libraries, on the same standardised problems.

Usage: ``python -m benchmarks.causal.peers [--seeds 20] [--first 0] [--tasks 5 10 20] [--only bmtl pc …] [--again]
[--out FILE]``. It needs the extra ``peers``. What the file holds already is not run again, unless by ``--again``:
``--only bmtl --again`` measures bmtl once more and keeps what its peers said. Problems are those of
`benchmarks.causal.problems.standardised`: every combination of 5, 10 or 20 tasks, Erdős–Rényi graphs with 1 or 2 edges
a task, 100 or 1,000 rows, normal or heavy-tailed noise, and no inputs or one for each task.

* The *SHD* is from the true graph's Markov equivalence class to the class of what a method found, in expectation where
  it has a posterior.
* The *log score* is that of the probability of an edge, over ordered pairs of tasks. Most peers state no probabilities:
  theirs are the best that there are in hindsight. Ordered pairs are counted by what a method says of them (no edge, the
  edge or its reverse, without a direction; whether all members of the class direct it alike) and by whether there is an
  edge, over all problems of one size and number of rows, and its shares are the probabilities.
* The *AUROC* of edges is from the same probabilities.

bmtl states its own, with default settings, and is told whether noise is normal or has Student-t tails, as a choice
among peers is (their degrees of freedom are 4, not 3).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bmtl
from benchmarks import record
from benchmarks.causal import peer_tables, rivals
from benchmarks.causal.problems import random_graph, standardised
from benchmarks.causal.scoring import auroc, expected_hamming, extended, hamming, log_score, off_diagonal, pattern
from bmtl.causal import dag_posterior

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

METHODS = ("bmtl", *rivals.POINTS, "dibs")
MOST_DIBS = 5
"""Tasks; more take too long."""

N_DRAWS = 1000
BINS = (0.02, 0.1, 0.3, 0.6, 0.9)
"""Of DiBS's probabilities, whose shares of edges are counted as those of graphs' levels are."""


@dataclass(frozen=True)
class Problem:
    """One problem: all fields but the seed say its cell."""

    tasks: int
    parents: int
    rows: int
    noise: str
    instruments: bool
    seed: int

    def draw(self) -> tuple[Flags, Array, Array]:
        """The true graph, tasks and inputs."""
        heavy = self.noise == "student_t"
        key = [self.seed, self.tasks, self.parents, self.rows, int(heavy), int(self.instruments)]
        rng = np.random.default_rng(key)
        graph = random_graph(self.tasks, self.parents, rng)
        return graph, *standardised(graph, self.rows, rng, tails=heavy, instruments=self.instruments)


def design(n_tasks: list[int], seeds: range) -> Iterator[Problem]:
    """All problems, one seed of every cell after the other."""
    for seed, *cell in product(seeds, n_tasks, (1, 2), (100, 1000), ("gaussian", "student_t"), (False, True)):
        yield Problem(*cell, seed)


def levels(graph: Flags) -> NDArray[np.int64]:
    """What a graph says of ordered pairs of tasks (T, T), lines being in both directions.

    0 no edge, 1 the reverse in all of the class, 2 the reverse in some, 3 an edge without direction, 4 an edge in some,
    5 in all of the class.
    """
    lines, arrows = graph & graph.T, graph & ~graph.T
    if lines.any():
        sure = arrows
    else:
        found = pattern(graph)
        sure = found & ~found.T
    return 3 * lines + 4 * arrows + (arrows & sure) + 2 * arrows.T - (arrows & sure).T


def counts(level: NDArray[np.int64], truth: Flags) -> list[list[int]]:
    """Ordered pairs of each of six levels without and with an edge, (6, 2)."""
    level, there = off_diagonal(level), off_diagonal(truth)
    return [[int(np.sum((level == i) & (there == edge))) for edge in (False, True)] for i in range(6)]


def ours(problem: Problem, truth: Flags, Y: Array, X: Array) -> dict[str, Any]:
    """What `dag_posterior` says."""
    tasks = bmtl.Tasks.from_arrays(X, Y, [problem.noise] * problem.tasks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
        found = dag_posterior(tasks)
    p = found.edges.to_numpy()
    return {
        "log score": log_score(p, truth), "AUROC": auroc(p, truth), "SHD": expected_hamming(found.draw(N_DRAWS), truth),
        "R-hat": found.diagnostics.get("r_hat"),
    }


def particles(problem: Problem, truth: Flags, Y: Array, X: Array) -> dict[str, Any]:
    """What DiBS says."""
    graphs, weights = rivals.dibs(Y, X, bmtl.EdgePrior().densities(problem.tasks).log_theta[0], problem.seed)
    distances = [hamming(pattern(graph), pattern(truth)) for graph in graphs]
    p = np.tensordot(weights, graphs, axes=1)
    return {"counts": counts(np.digitize(p, BINS), truth), "SHD": float(weights @ distances)}


def point(name: str, truth: Flags, Y: Array, X: Array) -> dict[str, Any]:
    """What a method says that finds one graph."""
    graph = rivals.POINTS[name](Y, X)
    member = extended(graph)
    # What tests of independence find need not be a class: then it is compared as it is.
    found = graph if member is None else pattern(member)
    return {"counts": counts(levels(graph), truth), "SHD": hamming(found, pattern(truth))}


def run(problem: Problem, names: list[str]) -> dict[str, Any]:
    """What some methods say of one problem, with their processor seconds."""
    truth, Y, X = problem.draw()
    found = {}
    for name in names:
        start = time.process_time()
        if name == "bmtl":
            found[name] = ours(problem, truth, Y, X)
        elif name == "dibs":
            found[name] = particles(problem, truth, Y, X)
        else:
            found[name] = point(name, truth, Y, X)
        found[name]["seconds"] = round(time.process_time() - start, 3)
    return found


def left(problem: Problem, done: Collection[str], only: list[str], *, again: bool) -> list[str]:
    """The methods that are still to be run on a problem."""
    able = [name for name in only if name != "dibs" or problem.tasks <= MOST_DIBS]
    return able if again else [name for name in able if name not in done]


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="Graphs of causes by bmtl and by other libraries.")
    parser.add_argument("--seeds", type=int, default=20, help="problems of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--again", action="store_true", help="also what the file holds already")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    held = {
        Problem(**{name: own[name] for name in Problem.__dataclass_fields__}): own["methods"]
        for own in record.read(options.out).get("problems", [])
    }
    for problem in design(options.tasks, range(options.first, options.first + options.seeds)):
        done = held.setdefault(problem, {})
        missing = left(problem, done, options.only, again=options.again)
        if missing:
            done.update(run(problem, missing))
            print(problem, {name: done[name]["seconds"] for name in missing}, flush=True)
            problems = [asdict(own) | {"methods": said} for own, said in held.items()]
            record.write(options.out, peers=rivals.installed(), problems=problems)
    peer_tables.show([asdict(own) | {"methods": said} for own, said in held.items() if said])


if __name__ == "__main__":
    main()
