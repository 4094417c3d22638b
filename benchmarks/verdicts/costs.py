"""What advice costs: its wall time over that of one shared fit, as tasks grow in number.

Usage: ``python -m benchmarks.verdicts.costs [--tasks 4 8 16 32] [--repeats 3] [--out FILE.json]``. Tasks are two
clusters of siblings on 300 rows of six inputs. Each time starts without anything compiled. Beside it the networks that
the pairwise higher-order approximation and an exhaustive search would train.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bmtl
from benchmarks import record
from benchmarks.drawn_pairs import N_MEASURE
from benchmarks.verdicts.problems import ROWS, cluster
from bmtl import replay
from bmtl.fitting import numpyro_svi
from bmtl.models import SharedTrunk

MODEL = SharedTrunk(bmtl.trunks.MLP((16,)))


def tasks_of(n: int, seed: int) -> bmtl.Tasks:
    """n Gaussian tasks in two clusters."""
    rng = np.random.default_rng(seed)
    X, measure, parts = rng.normal(size=(ROWS, 6)), rng.normal(size=(N_MEASURE, 6)), []
    for size in (n // 2, n - n // 2):
        functions = cluster(rng, rng.permutation(6)[:3], measure, size)
        parts += [f(X) + rng.uniform(0.2, 0.6) * rng.normal(size=ROWS) for f in functions]
    return bmtl.Tasks.from_arrays(X, np.column_stack(parts), ["gaussian"] * n)


def seconds(call: Any) -> float:
    """Wall time with nothing compiled before."""
    jax.clear_caches()
    numpyro_svi._COMPILED.clear()
    replay._compiled.cache_clear()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What advice costs.")
    parser.add_argument("--tasks", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    rows = []
    print(f"{'tasks':>6}{'one fit, s':>12}{'advise, s':>11}{'ratio':>7}{'pairs, nets':>13}{'exhaustive, nets':>18}")
    for n in options.tasks:
        times = []
        for repeat in range(options.repeats):
            tasks = tasks_of(n, repeat)
            one = seconds(lambda tasks=tasks: bmtl.fit(MODEL, tasks, progress=False))
            advice = seconds(lambda tasks=tasks: bmtl.advise(MODEL, tasks, progress=False))
            times.append((one, advice))
        fits, advices = np.array(times).T
        ratio = float(np.median(advices / fits))
        rows.append({"tasks": n, "fit": fits.tolist(), "advise": advices.tolist(), "ratio": ratio})
        print(
            f"{n:6d}{np.median(fits):12.1f}{np.median(advices):11.1f}{ratio:7.1f}"
            f"{n * (n + 1) // 2:13,d}{2**n - 1:18,d}",
            flush=True,
        )
        record.write(options.out, rows=rows)


if __name__ == "__main__":
    main()
