"""Draw problems, advise, fit every arrangement, and compare; see the README beside this folder.

Usage: ``python -m benchmarks.verdicts [--each 30] [--seed 1000] [--kinds twins …] [--jobs 2] [--out FILE.json]``.
Problems that the file holds already are not run again. Constants were chosen on seeds below 100.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks import record
from benchmarks.verdicts.one import OPTIONS, run
from benchmarks.verdicts.problems import KINDS
from benchmarks.verdicts.tables import show

PART = 10
"""Problems of a kind that are run one after another."""


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="Are verdicts right, calibrated and harmless?")
    parser.add_argument("--each", type=int, default=30, help="problems of each kind")
    parser.add_argument("--seed", type=int, default=1000, help="of the first problem of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    held = record.read(options.out).get("problems", [])
    done = {(own["kind"], own["seed"]) for own in held}
    # A kind at a time, whose problems share compiled programs; a few of all kinds before more of any.
    last = options.seed + options.each
    parts = [range(first, min(first + PART, last)) for first in range(options.seed, last, PART)]
    missing = [(kind, seed) for part in parts for kind in options.kinds for seed in part if (kind, seed) not in done]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run, *problem) for problem in missing]):
            own = future.result()
            held.append(own)
            print(f"{own['kind']} {own['seed']}: {own['arrangement']}, {own['all_seconds']:.0f} s", flush=True)
            held.sort(key=lambda one: (KINDS.index(one["kind"]), one["seed"]))
            record.write(options.out, options=OPTIONS, seed=options.seed, problems=held)
    show(held)


if __name__ == "__main__":
    main()
