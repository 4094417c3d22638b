"""Two basins, each good for one task: an average over tasks does not tell them apart, `bmtl.diagnostics.restarts` does.

Two unrelated tasks, tanh of one direction each, share a trunk of a single tanh unit. It can follow one of them only;
which one depends on where training begins, and the average over tasks is about the same.

Usage: ``python -m benchmarks.training.aggregate_trap [--runs 20] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import bmtl
from benchmarks import record
from bmtl.trunks import MLP
from case_studies.transfer_and_conflict import ADAM, two_directions

ROWS, EPOCHS = 600, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = {
        name: bmtl.diagnostics.restarts(
            MLP((width,)), two_directions(ROWS), runs=arguments.runs, epochs=EPOCHS, optimiser=ADAM, device="cpu"
        )
        for name, width in (("one unit", 1), ("sixteen units", 16))
    }
    summary = []
    for name, own in found.items():
        pairs = own.pairs()
        print(f"{name}\n{own}\n", flush=True)
        summary.append({
            "trunk": name, "tied": float(pairs["tied"].mean()), "trap": float(pairs["trap"].mean()),
            "pareto": int(own.pareto.sum()), "aggregate_sd": float(own.scores.mean(axis=1).std(ddof=1)),
            "p_misled": own.misleading().set_index("task")["p_misled"].to_dict(),
            "correlation_of_tasks_over_runs": float(np.corrcoef(own.scores.T)[0, 1]),
        })
    scores = [
        {"trunk": name, "seed": seed, **dict(zip(own.names, score, strict=True))}
        for name, own in found.items() for seed, score in zip(own.seeds, own.scores.round(4).tolist(), strict=True)
    ]
    record.write(arguments.out, epochs=EPOCHS, rows=ROWS, summary=summary, scores=scores)


if __name__ == "__main__":
    main()
