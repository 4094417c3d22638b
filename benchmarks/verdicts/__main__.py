"""Draw problems, advise, fit every arrangement, and compare; see the README beside this folder.

Usage: ``python -m benchmarks.verdicts [--each 30] [--seed 1000] [--kinds twins …] [--jobs 2] [--out FILE.json]``.
Problems that the file holds already are not run again. Constants were chosen on seeds below 100.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.calibration import hardware
from benchmarks.verdicts.one import OPTIONS, run
from benchmarks.verdicts.problems import KINDS
from benchmarks.verdicts.tables import show
from bmtl import versions


def write(path: Path, records: list[dict[str, Any]], seed: int) -> None:
    """All records, a line each, with what they were made by."""
    ordered = sorted(records, key=lambda own: (KINDS.index(own["kind"]), own["seed"]))
    meta = {"versions": versions.installed(), "hardware": hardware(), "options": OPTIONS, "seed": seed}
    lines = ",\n".join(json.dumps(own) for own in ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(meta, indent=1)[:-2] + f',\n "problems": [\n{lines}\n]\n}}\n', "utf-8")


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="Are verdicts right, calibrated and harmless?")
    parser.add_argument("--each", type=int, default=30, help="problems of each kind")
    parser.add_argument("--seed", type=int, default=1000, help="of the first problem of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    held = json.loads(options.out.read_text("utf-8"))["problems"] if options.out and options.out.exists() else []
    done = {(own["kind"], own["seed"]) for own in held}
    # Kinds one after another: problems of one kind share compiled programs.
    seeds = range(options.seed, options.seed + options.each)
    missing = [(kind, seed) for kind in options.kinds for seed in seeds if (kind, seed) not in done]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run, *problem) for problem in missing]):
            held.append(future.result())
            own = held[-1]
            print(f"{own['kind']} {own['seed']}: {own['arrangement']}, {own['all_seconds']:.0f} s", flush=True)
            if options.out:
                write(options.out, held, options.seed)
    show(held)


if __name__ == "__main__":
    main()
