"""Casual and registered riders: which mechanisms are at odds?

Usage: ``python -m benchmarks.causal.bikes [--rows N] [--out FILE.json]``.

All hours of `case_studies/data` (or N of them), the inputs of `benchmarks.verdicts.real`. A Poisson analysis of each
outcome alone, with hour, month and weather as factors, has the working day at −.88 for casual and +.28 for registered
riders. Three models of both together:

* *poisson*: an hour counts in proportion to its riders, as in that analysis;
* *negative_binomial*: with overdispersion, hours count about alike, and those at night, with few riders and fewer on
  working days, balance those of commuters;
* *by hour*: negative binomial, with the working day's products with the harmonics of the hour as further inputs, so
  that it may act differently by hour.

For each the effects of all inputs (`Effects.mechanisms`), and, as the one figure that has the same meaning in all
three, the logarithm of how many times more riders there are on average if the same hours are working days, by
`Effects.do` with inputs set to 1 and to 0.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bmtl
from benchmarks import record
from benchmarks.verdicts.real import BIKES, cyclic
from bmtl.causal import Effects, dag_posterior, effects

HOURS = 500
HARMONICS = ("sin 1", "cos 1", "sin 2", "cos 2")
TASKS = ("casual", "registered")
MODELS = {"poisson": ("poisson", False), "negative_binomial": ("negative_binomial", False),
          "by hour": ("negative_binomial", True)}


def multiplied(frame: pd.DataFrame) -> pd.DataFrame:
    """With the products of the working day and the harmonics of the hour."""
    return frame.assign(**{f"workingday × {name}": frame["workingday"] * frame[name] for name in HARMONICS})


def ratios(found: Effects, frame: pd.DataFrame) -> pd.DataFrame:
    """Logarithms of the ratio of mean riders on working days and other days, on the same hours."""
    hours = frame.sample(HOURS, random_state=0)
    means = [found.do({}, multiplied(hours.assign(workingday=day))).means for day in (1, 0)]
    logs = {name: np.log(means[0][name].mean(axis=1) / means[1][name].mean(axis=1)) for name in TASKS}
    rows = [(name, own.mean(), *np.quantile(own, [0.055, 0.945])) for name, own in logs.items()]
    opposite = float(np.mean(logs["casual"] * logs["registered"] < 0))
    return pd.DataFrame(rows, columns=["task", "log_ratio", "low", "high"]).assign(p_opposite=opposite)


def check(name: str, frame: pd.DataFrame, inputs: list[str]) -> dict[str, Any]:
    """Fit one model, and print its tables."""
    family, by_hour = MODELS[name]
    extra = [column for column in multiplied(frame) if column.startswith("workingday ×")] if by_hour else []
    start = time.process_time()
    tasks = bmtl.Tasks.from_frame(multiplied(frame), [*inputs, *extra], dict.fromkeys(TASKS, family))
    found = effects(tasks, dag_posterior(tasks), draws=4, seed=0)
    tables = {"edges": found.edges(), "effects": found.mechanisms(), "working day": ratios(found, frame),
              "split": found.split(*TASKS)}
    seconds = time.process_time() - start
    print(f"\n\n{name}: {len(frame)} hours, {len(found.draws)} draws, {seconds:.1f} processor seconds")
    for title, table in tables.items():
        print(f"\n{title}\n{table.to_string(index=False)}")
    print(f"\n{found.advice(*TASKS)}", flush=True)
    # NaN, of an edge that no graph drawn has, is no JSON.
    records = {key: own.astype(object).where(own.notna(), None).to_dict("records") for key, own in tables.items()}
    return {"model": name, "processor seconds": seconds, **records}


def main() -> None:
    """Print the tables of all models, and write them."""
    parser = argparse.ArgumentParser(description="Mechanisms at odds in Bikeshare.")
    parser.add_argument("--rows", type=int, help="default: all")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    frame = pd.read_csv(BIKES)
    frame, _, inputs = cyclic(frame if options.rows is None else frame.sample(options.rows, random_state=0))
    with pd.option_context("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.4f}".format):
        found = [check(name, frame, inputs) for name in MODELS]
    record.write(options.out, rows=len(frame), models=found)


if __name__ == "__main__":
    main()
