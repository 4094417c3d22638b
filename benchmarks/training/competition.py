"""Two tasks that a narrow trunk cannot hold together, and a wide one can: does `bmtl.diagnostics.capacity` say so?

Each task is a network of six tanh units of its own in the same six inputs, with a tenth of its spread as noise.

Usage: ``python -m benchmarks.training.competition [--seeds 3] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bmtl
from benchmarks import record
from bmtl.trunks import MLP

UNITS, INPUTS, ROWS, NOISE = 6, 6, 1500, 0.1
WIDTHS, RUNS, EPOCHS = (8, 16, 32, 64), 3, 1000


def problem(seed: int) -> bmtl.Tasks:
    rng = np.random.default_rng([seed, 12])
    X = rng.normal(size=(ROWS, INPUTS))
    hidden = np.tanh(X @ rng.normal(0.0, 1.5 / np.sqrt(INPUTS), (2, INPUTS, UNITS)) + rng.normal(size=(2, 1, UNITS)))
    f = np.einsum("tnk,tk->nt", hidden, rng.choice([-1.0, 1.0], (2, UNITS)))
    f = (f - f.mean(axis=0)) / f.std(axis=0)
    return bmtl.Tasks.from_arrays(X, f + NOISE * rng.normal(size=f.shape), ["gaussian"] * 2, names=["first", "second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        found = bmtl.diagnostics.capacity(
            MLP((8,)), problem(seed), widths=WIDTHS, runs=RUNS, epochs=EPOCHS, seed=seed, device="cpu",
            optimiser=partial(torch.optim.Adam, lr=0.02),
        )
        print(found, flush=True)
        rows += [{"seed": seed, **row} for row in found.table().to_dict("records")]
        said.append({"seed": seed, "width": found.width, "competes": found.summary["competes"].tolist(),
                     "seconds": round(time.perf_counter() - start, 1)})
    record.write(arguments.out, runs=RUNS, epochs=EPOCHS, rows=ROWS, said=said, table=rows)


if __name__ == "__main__":
    main()
