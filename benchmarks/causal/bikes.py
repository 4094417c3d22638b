"""Casual and registered riders: which mechanisms are at odds?

Usage: ``python -m benchmarks.causal.bikes [--rows N] [--out FILE.json]``.

All hours of the case study `bike_riders` (or N of them), and its inputs. A Poisson analysis of each
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

import pandas as pd

import bmtl
from benchmarks import record
from bmtl.causal import dag_posterior, effects
from case_studies.bike_riders import INPUTS, RIDERS, by_hour, ratios, read

MODELS = {"poisson": ("poisson", False), "negative_binomial": ("negative_binomial", False),
          "by hour": ("negative_binomial", True)}


def check(name: str, frame: pd.DataFrame, inputs: list[str]) -> dict[str, Any]:
    """Fit one model, and print its tables."""
    family, varies = MODELS[name]
    extra = [column for column in by_hour(frame) if column.startswith("workingday ×")] if varies else []
    start = time.process_time()
    tasks = bmtl.Tasks.from_frame(by_hour(frame), [*inputs, *extra], dict.fromkeys(RIDERS, family))
    found = effects(tasks, dag_posterior(tasks), draws=4, seed=0)
    tables = {"edges": found.edges(), "effects": found.mechanisms(), "working day": ratios(found, frame),
              "split": found.split(*RIDERS)}
    seconds = time.process_time() - start
    print(f"\n\n{name}: {len(frame)} hours, {len(found.draws)} draws, {seconds:.1f} processor seconds")
    for title, table in tables.items():
        print(f"\n{title}\n{table.to_string(index=False)}")
    print(f"\n{found.advice(*RIDERS)}", flush=True)
    # NaN, of an edge that no graph drawn has, is no JSON.
    records = {key: own.astype(object).where(own.notna(), None).to_dict("records") for key, own in tables.items()}
    return {"model": name, "processor seconds": seconds, **records}


def main() -> None:
    """Print the tables of all models, and write them."""
    parser = argparse.ArgumentParser(description="Mechanisms at odds in Bikeshare.")
    parser.add_argument("--rows", type=int, help="default: all")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    frame, inputs = read(options.rows), [*INPUTS, "day"]
    with pd.option_context("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.4f}".format):
        found = [check(name, frame, inputs) for name in MODELS]
    record.write(options.out, rows=len(frame), models=found)


if __name__ == "__main__":
    main()
