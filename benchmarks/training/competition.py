"""Two tasks that a narrow trunk cannot hold together, and a wide one can: does `bmtl.diagnostics.capacity` say so?

Each task is a network of six tanh units of its own in the same six inputs, with a tenth of its spread as noise.

Usage: ``python -m benchmarks.training.competition [--seeds 3] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import bmtl
from benchmarks import record
from bmtl.trunks import MLP
from case_studies.transfer_and_conflict import ADAM, two_networks

ROWS = 1500
WIDTHS, RUNS, EPOCHS = (8, 16, 32, 64), 3, 1000


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
            MLP((8,)), two_networks(seed, ROWS), widths=WIDTHS, runs=RUNS, epochs=EPOCHS, seed=seed, device="cpu",
            optimiser=ADAM,
        )
        print(found, flush=True)
        rows += [{"seed": seed, **row} for row in found.table().to_dict("records")]
        said.append({"seed": seed, "width": found.width, "competes": found.summary["competes"].tolist(),
                     "seconds": round(time.perf_counter() - start, 1)})
    record.write(arguments.out, runs=RUNS, epochs=EPOCHS, rows=ROWS, said=said, table=rows)


if __name__ == "__main__":
    main()
