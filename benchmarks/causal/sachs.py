"""Eleven proteins of single cells: is the posterior over graphs near what biology says of them?

Usage: ``python -m benchmarks.causal.sachs [--peers] [--out FILE.json]``. Nothing was tuned to it: families, inputs and
marks follow from what was measured and done (`case_studies/data/sachs.md`), everything else is a default.

Amounts are positive and vary by factors, so that every protein is a lognormal task: linear Gaussian in logarithms.

* *observational*: the 853 cells of the first condition, without an input.
* *nine conditions*: 7,466 cells. Where a reagent sets a molecule its cells are marked as intervened. Of the others it
  is not said what they act on: ICAM-2, the inhibitors of MEK's activity (U0126: MEK rises and ERK falls) and of PI3K
  (LY294002, not measured), and the activation by anti-CD3/CD28, which the last two conditions lack, are inputs.
* *nine conditions, anywhere*: the same marks, and each condition is an input: a reagent may act on any other molecule
  besides. G06976 shifts most of them by factors of 5 to 20, and not all through PKC.

Two graphs are compared with: the 17 edges that Sachs et al. (Science, 2005) found, the usual reference, and the 20 that
they expected from the literature. Structural Hamming distance is that of graphs, as it is published, and that of
equivalence classes, averaged over the posterior. With ``--peers`` (and the extra of that name) other libraries' graphs
of the same observational cells, in standardised logarithms, are compared too.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bmtl
from benchmarks import record
from benchmarks.causal import rivals
from benchmarks.causal.scoring import auroc, expected_hamming, extended, hamming, pattern
from bmtl.causal import dag_posterior
from case_studies.proteins import listed, nine, observational, references

N_DRAWS = 2000


def check(name: str, tasks: bmtl.Tasks) -> dict[str, Any]:
    """The posterior, and how far it is from the references."""
    start, worked = time.perf_counter(), time.process_time()
    found = dag_posterior(tasks)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    graphs = references(list(found.names))
    edges, draws = listed(found), found.draw(N_DRAWS)
    p, likeliest = found.edges.to_numpy(), found.map.to_numpy()
    compared = []
    for which, graph in graphs.items():
        truth = graph.to_numpy()
        compared.append({
            "graph": which, "edges": int(truth.sum()),
            "expected SHD": float(np.mean([hamming(own, truth) for own in draws])),
            "expected SHD of classes": expected_hamming(draws, truth),
            "SHD of the likeliest": hamming(likeliest, truth),
            "AUROC": auroc(p, truth), "AUROC of pairs": auroc(p + p.T, truth | truth.T),
            "expected true edges": float(p[truth].sum()), "expected reversed edges": float(p.T[truth].sum()),
        })
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{name}: {len(tasks.X)} cells, {seconds:.1f} s ({worked:.1f} s of one core), at the peak {peak:.2f} GiB")
    print(f"expected edges {p.sum():.1f}")
    for own in (edges, pd.DataFrame(compared)):
        print(f"\n{own.to_string(index=False)}")
    return {
        "data": name, "cells": len(tasks.X), "method": found.method, "seconds": seconds, "processor seconds": worked,
        "peak GiB": peak, "expected edges": float(p.sum()), "compared": compared, "edges": edges.to_dict("records"),
    }


def peers() -> list[dict[str, Any]]:
    """How far the graphs that others find in the observational cells are from the references."""
    tasks = observational()
    logs = np.log(np.column_stack(tasks.y))
    Y = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    found = []
    for name, method in rivals.POINTS.items():
        graph = method(Y, np.empty((len(Y), 0)))
        member = extended(graph)
        own = graph if member is None else pattern(member)
        for which, reference in references(list(tasks.names)).items():
            truth = reference.to_numpy()
            found.append({
                "method": name, "graph": which, "edges": int(np.triu(graph | graph.T).sum()),
                "SHD": hamming(graph, truth), "SHD of classes": hamming(own, pattern(truth)),
            })
    print(f"\npeers, observational\n\n{pd.DataFrame(found).to_string(index=False)}")
    return found


def main() -> None:
    """Print the analyses, and write them."""
    parser = argparse.ArgumentParser(description="The posterior over graphs of Sachs et al.'s proteins.")
    parser.add_argument("--peers", action="store_true", help="other libraries too")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    with pd.option_context("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.3f}".format):
        found = [check("observational", observational()), check("nine conditions", nine(anywhere=False)),
                 check("nine conditions, anywhere", nine(anywhere=True))]
        others = peers() if options.peers else []
    record.write(options.out, analyses=found, packages=rivals.installed(), peers=others)


if __name__ == "__main__":
    main()
