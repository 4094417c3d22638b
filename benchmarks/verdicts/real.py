"""Advice on real data, checked on repeated held-out splits.

Usage: ``python -m benchmarks.verdicts.real [--only meats bikes doctors] [--splits 3] [--out FILE.json]``.

* *meats*: water, fat and protein of 215 samples from ten principal components of their spectra.
* *bikes*: casual and registered riders of 2,000 hours.
* *doctors*: seven counts of health care use of 2,000 Australians, of which medicines are the exact sum of prescribed
  and other ones.

They are read by the case studies `spectra`, `bike_riders` and `doctor_visits`.

A row-permuted copy of one outcome is added to each: it must be decoupled. In every split a quarter of the rows is held
out, and the recommended arrangement's mean log predictive density compared with those of decoupled, shared and merged.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bmtl
from benchmarks import record
from benchmarks.verdicts.blocks import FITS
from bmtl.arrangement import Arrangement
from bmtl.models import SharedTrunk
from case_studies import bike_riders, doctor_visits, spectra

ROWS, HELD = 2000, 4
MODEL = SharedTrunk(bmtl.trunks.MLP((16,)))


def bikes() -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Frame, outputs with their families, and inputs."""
    frame = pd.DataFrame(bike_riders.read().sample(ROWS, random_state=0, ignore_index=True))
    return frame, dict.fromkeys(bike_riders.RIDERS, bike_riders.FAMILY), [*bike_riders.INPUTS, "day"]


def doctors() -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Frame, outputs with their families, and inputs."""
    counts = dict.fromkeys(doctor_visits.COUNTS, "negative_binomial")
    return doctor_visits.read(ROWS), counts, list(doctor_visits.INPUTS)


DATA: dict[str, Callable[[], tuple[pd.DataFrame, dict[str, str], list[str]]]] = {
    "meats": spectra.read, "bikes": bikes, "doctors": doctors,
}


def check(name: str, splits: int) -> dict[str, Any]:
    """Advice on one data set, and scores on its splits."""
    frame, outputs, inputs = DATA[name]()
    first = next(iter(outputs))
    control = f"{first} (permuted)"
    frame = frame.assign(**{control: np.random.default_rng(0).permutation(frame[first])})
    outputs = outputs | {control: outputs[first]}
    start = time.perf_counter()
    advice = bmtl.advise(MODEL, bmtl.Tasks.from_frame(frame, inputs, outputs), seed=0, progress=False)
    seconds = time.perf_counter() - start
    print(f"\n{name}\n{advice}\n", flush=True)
    of_control = advice.pairs[advice.pairs[["task_a", "task_b"]].isin([control]).any(axis=1)]
    names = tuple(outputs)
    tried = {
        "decoupled": Arrangement.decoupled(names), "shared": Arrangement.shared(names),
        "merged": Arrangement(((names,),)), "recommended": advice.arrangement,
    }
    rows = []
    for split in range(splits):
        held = np.random.default_rng(split).permutation(len(frame)) % HELD == 0
        learn, rest = (bmtl.Tasks.from_frame(frame[own], inputs, outputs) for own in (~held, held))
        scores = {own: _score(replace(MODEL, arrangement=one), learn, rest) for own, one in tried.items()}
        best = max(scores, key=lambda own, scores=scores: scores[own][0])
        behind = scores[best][0] - scores["recommended"][0]
        rows.append({"split": split, "scores": scores, "best": best, "behind": behind})
        own = ", ".join(f"{key} {mean:.4f} ± {se:.4f}" for key, (mean, se) in scores.items())
        print(f"split {split}: {own}; recommended is {behind:.4f} behind {best}", flush=True)
    return {
        "data": name, "arrangement": str(advice.arrangement), "verdict": advice.verdict,
        "probability": advice.probability, "control decoupled": bool((of_control["verdict"] == "decouple").all()),
        "control apart": any(trunk == ((control,),) for trunk in advice.arrangement.trunks),
        "seconds": seconds, "splits": rows, "pairs": advice.pairs.drop(columns="why").to_dict("records"),
    }


def _score(model: Any, learn: bmtl.Tasks, rest: bmtl.Tasks) -> tuple[float, float]:
    """Mean over observations of the log predictive density, and its standard error; averaged over fits."""
    found = [bmtl.fit(model, learn, seed=seed, progress=False).score(rest) for seed in range(FITS)]
    n = found[0]["n"].to_numpy()
    lpd, se = (np.mean([own[column] for own in found], axis=0) for column in ("lpd", "se"))
    return float((lpd * n).sum() / n.sum()), float(np.sqrt(((se * n) ** 2).sum()) / n.sum())


def main() -> None:
    """Check the data sets, and write what was found."""
    parser = argparse.ArgumentParser(description="Advice on real data against held-out splits.")
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    held = record.read(options.out).get("data", {})
    for name in options.only:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bmtl.ConvergenceWarning)
            held[name] = check(name, options.splits)
        record.write(options.out, data=held)


if __name__ == "__main__":
    main()
