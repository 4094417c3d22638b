"""Two tasks that a narrow trunk cannot hold together, and a wide one can: do diagnostics and advice say so?

Each task is a network of six tanh units of its own in the same six inputs, with a tenth of its spread as noise.
`bmtl.diagnostics.capacity` is to find the width from which on sharing does not hurt, and `bmtl.advise`, given a trunk
of eight units, that a wider one lets the two share. Seeds that ``--out`` holds already are not run again.

Usage: ``python -m benchmarks.training.competition [--seeds 3] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import bmtl
from benchmarks import record
from bmtl.models import SharedTrunk
from bmtl.trunks import MLP
from case_studies.transfer_and_conflict import ADAM, two_networks

ROWS = 1500
WIDTHS, RUNS, EPOCHS, FOLDS = (8, 16, 32, 64), 3, 1000, 2


def diagnosed(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What `capacity` says, and its table."""
    start = time.perf_counter()
    found = bmtl.diagnostics.capacity(
        MLP((8,)), two_networks(seed, ROWS), widths=WIDTHS, runs=RUNS, epochs=EPOCHS, seed=seed, device="cpu",
        optimiser=ADAM,
    )
    print(found, flush=True)
    said = {"seed": seed, "width": found.width, "competes": found.summary["competes"].tolist(),
            "seconds": round(time.perf_counter() - start, 1)}
    return said, [{"seed": seed, **row} for row in found.table().to_dict("records")]


def advised(seed: int) -> dict[str, Any]:
    """What `advise` says of a trunk of eight units: what sharing does to the tasks that it harms, there and wider."""
    found = bmtl.advise(
        SharedTrunk(MLP((8,))), two_networks(seed, ROWS), folds=FOLDS, restarts=1, device="cpu", seed=seed,
        progress=False,
    )
    print(found, flush=True)
    wider = found.wider
    said: dict[str, Any] = {"seed": seed, "verdict": found.verdict, "widen": wider is not None and wider.enough}
    if wider is not None:
        said |= {"harmed": list(wider.tasks), "still": list(wider.still), "before": wider.before,
                 "after": wider.after, "wider": repr(wider.trunk)}
    return {**said, "seconds": round(found.seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    before = record.read(arguments.out)
    said, advice, rows = (before.get(name, []) for name in ("said", "advice", "table"))
    for seed in range(arguments.seeds):
        if seed not in [own["seed"] for own in said]:
            own, table = diagnosed(seed)
            said.append(own)
            rows += table
        if seed not in [own["seed"] for own in advice]:
            advice.append(advised(seed))
        record.write(
            arguments.out, runs=RUNS, epochs=EPOCHS, folds=FOLDS, rows=ROWS, said=said, advice=advice, table=rows
        )


if __name__ == "__main__":
    main()
