"""What sixteen fits cost over one: restarts or folds of a small network, trained side by side.

Every fit takes the same number of steps, and what compiles is compiled before.

Usage: ``python -m benchmarks.speed.many [--engines numpyro pyro] [--repeats 5] [--device cpu] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

import bmtl
from benchmarks import record
from benchmarks.speed.timing import compared, interleaved, surroundings
from bmtl.data import Design, arrays
from bmtl.fitting import SVI, numpyro_svi, pyro_svi
from bmtl.models import SharedTrunk
from bmtl.trunks import MLP

FITS, ROWS, STEPS = 16, 300, 500


def problem() -> tuple[Design, dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Four tasks on 300 rows, and sixteen folds of them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 6))
    Y = np.tanh(X @ rng.normal(size=(6, 4))) + 0.3 * rng.normal(size=(ROWS, 4))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 4)
    design = Design.of(tasks)
    values = arrays(tasks, design)
    apart = np.arange(ROWS) % FITS
    masks = [
        {name: own & (apart != fold) for name, own in values.items() if name.startswith("mask/")}
        for fold in range(FITS)
    ]
    return design, values, masks


def show(engines: list[str], device: str, repeats: int, out: Path | None) -> None:
    """Measure, print and write."""
    design, values, masks = problem()
    model, settings = SharedTrunk(MLP((16,))), SVI(trunk="guide", restarts=1, max_steps=STEPS, draws=10)
    found = []
    print(f"{'engine':>8}{'one fit, s':>12}{f'{FITS} fits, s':>12}{'ratio':>7}{'ratio, cpu':>12}")
    for engine in engines:
        run = numpyro_svi.run if engine == "numpyro" else partial(pyro_svi.run, device=device)
        calls = {
            name: partial(run, model, design, values, settings, 0, each)
            for name, each in (("many", masks), ("one", masks[:1]))
        }
        r = compared(interleaved(calls, repeats), "many", "one")
        found.append({"engine": engine, **r})
        print(f"{engine:>8}{r['one_wall']:12.2f}{r['many_wall']:12.2f}{r['ratio_wall']:7.2f}{r['ratio_cpu']:12.2f}",
              flush=True)
        record.write(out, settings={"fits": FITS, "rows": ROWS, "steps": STEPS, "device": device, "repeats": repeats,
                                    **surroundings()}, engines=found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engines", nargs="+", default=["numpyro", "pyro"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    show(options.engines, options.device, options.repeats, options.out)


if __name__ == "__main__":
    main()
