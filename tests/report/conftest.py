"""A made-up advice about seven tasks, with what a report must cope with: long names, a control, a flipped sign."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bmtl.arrangement import Arrangement

LONG = "Number of visits to a general practitioner or specialist in the twelve months before the interview"
TASKS = {
    "systolic blood pressure": "gaussian",
    "diastolic blood pressure": "gaussian",
    "arterial compliance": "student_t",
    "hypertension diagnosed": "bernoulli",
    LONG: "negative_binomial",
    "hospital nights": "poisson",
    "hospital nights (permuted)": "poisson",
}
ARRANGEMENT = Arrangement(
    (
        (
            ("systolic blood pressure", "arterial compliance"),
            ("diastolic blood pressure",),
            ("hypertension diagnosed",),
        ),
        ((LONG,), ("hospital nights",)),
        (("hospital nights (permuted)",),),
    ),
    frozenset({"systolic blood pressure"}),
)
NOISE = {"systolic blood pressure": 11.2, "diastolic blood pressure": 8.1, "arterial compliance": 0.43, LONG: 1.52}
UNDECIDED = {"hypertension diagnosed", LONG}
WHY = {
    "merge": "Given the inputs, both follow one function; a head of its own predicts left-out rows no better.",
    "weight": "They use the same features of the inputs, in different proportions; their noises differ.",
    "decouple": "Sharing a trunk predicts left-out rows of {a} worse, by more than twice its standard error.",
    "undecided": "Weighting and decoupling predict equally well with so few rows: more data would decide.",
}


def pairs(undecided: bool) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows: list[tuple[Any, ...]] = []
    for a, b in combinations(TASKS, 2):
        verdict = "undecided" if {a, b} == UNDECIDED else ARRANGEMENT.relation(a, b)
        p = {
            "merge": (0.93, 0.0669, 0.0031), "weight": (0.08, 0.85, 0.07),
            "decouple": (0.001, 0.04, 0.959), "undecided": (0.02, 0.51, 0.47),
        }[verdict]
        centre = {"merge": 0.96, "weight": 0.6, "decouple": 0.03, "undecided": 0.35}[verdict]
        r = -centre if "arterial compliance" in (a, b) else centre
        gain = {"merge": 21.4, "weight": 8.2, "decouple": -6.3, "undecided": 0.7}[verdict]
        rows.append((
            a, b, "undecided" if undecided else verdict, *p, gain, 3.1, gain / 3, 2.2,
            float(np.clip(r + rng.normal(0, 0.05), -0.99, 0.99)), float(rng.normal(0, 0.2)), WHY[verdict].format(a=a),
        ))
    columns = "task_a task_b verdict p_merge p_weight p_decouple elpd_gain_a se_a elpd_gain_b se_b correlation"
    return pd.DataFrame(rows, columns=[*columns.split(), "residual_correlation", "why"])


def tasks() -> tuple[pd.DataFrame, pd.DataFrame]:
    gains = np.array([14.2, 19.8, 31.0, 4.4, 6.1, 9.3, 0.0])
    merged = np.array([-12.0, -260.5, 20.1, -31.7, -2841.0, -55.0, -4.2])
    rows, differences = [], []
    for t, (name, family) in enumerate(TASKS.items()):
        n = 412 - 37 * t
        base = -(2.1 + 0.3 * t) * n
        noise = NOISE.get(name, np.nan) * np.array([1.0, 0.94, 1.07])
        weight = [0.0079, 0.0152, 5.1, 0.18, 0.44, 1.9, 1.7][t] * np.array([1.0, 0.88, 1.13])
        checks = "ok" if t != 5 else "Pareto k̂ above 0.7 in 2 cells"
        why = "Alone it has too few rows; those of the others help." if gains[t] else "Nothing shared helps."
        found = {"weighted": gains[t] * 0.8 - 1, "merged": merged[t], "recommended": gains[t]}
        se = {key: 0.3 * abs(value) ** 0.5 + 1.2 if value else 0.0 for key, value in found.items()}
        rows.append((
            name, family, n, base, 21.0, base + found["weighted"], 20.4, base + merged[t], 25.0, base + gains[t], 20.1,
            gains[t], se["recommended"], *noise, *weight, checks, why,
        ))
        differences += [(name, key, value, se[key], n) for key, value in found.items()]
    columns = [
        "task", "family", "n", "elpd_decoupled", "se_decoupled", "elpd_weighted", "se_weighted", "elpd_merged",
        "se_merged", "elpd_recommended", "se_recommended", "gain", "se_gain", "noise", "noise_low", "noise_high",
        "weight", "weight_low", "weight_high", "checks", "why",
    ]
    return (
        pd.DataFrame(rows, columns=columns),
        pd.DataFrame(differences, columns=["task", "arrangement", "difference", "se", "n"]),
    )


def fit(converged: bool, trace: bool = True) -> SimpleNamespace:
    rng = np.random.default_rng(3)
    steps = np.arange(60)
    runs = 2600 + 9000 * np.exp(-steps / 5) + rng.normal(0, 6, (3, 60)) + np.array([[0.0], [30.0], [75.0]])
    runs[0, 52:] = np.nan
    rows = [
        ("settled", "ELBO", 52.0, "chunks of steps until it settled", converged, True),
        ("Pareto k̂", "guide", 1.234, "≤ 0.7", False, False),
        ("ELBO spread", "restarts", 74.6, "reported, nats", True, False),
    ]
    problems = "" if converged else "settled of ELBO is 60 (wanted: chunks of steps until it settled)"
    return SimpleNamespace(
        method="map",  # no draws to check predictions with
        checks=pd.DataFrame(rows, columns=["check", "of", "value", "limit", "passed", "needed"]),
        problems=problems,
        converged=converged,
        summary=lambda: {
            "model": "SharedTrunk", "arrangement": str(ARRANGEMENT), "method": "svi", "engine": "numpyro on cpu",
            "draws": "1 × 1000", "seed": "20240607", "seconds": "41.3", "converged": "yes" if converged else "NO",
        },
        draws=SimpleNamespace(trace=runs if trace else None),
    )


def make(converged: bool = True, trace: bool = True) -> SimpleNamespace:
    table, differences = tasks()
    return SimpleNamespace(
        pairs=pairs(undecided=not converged),
        tasks=table,
        differences=differences,
        arrangement=ARRANGEMENT,
        probability=0.724,
        verdict="mixed" if converged else "undecided",
        reason=(
            "Blood pressures and compliance share what the inputs say, and so do the two counts of care; the groups "
            "do not gain from each other. The permuted control is left alone, as it should be."
        ),
        arrangements=pd.DataFrame({
            "arrangement": [str(ARRANGEMENT), str(Arrangement.shared(TASKS)), str(Arrangement.decoupled(TASKS))],
            "probability": [0.724, 0.161, 0.0004],
        }),
        fit=fit(converged, trace),
        evidence="3-fold refits, rows left out",
        effects=None,
        seconds=187.4,
        versions={"bmtl": "0.3.0", "jax": "0.10.2", "numpy": "2.4.6", "numpyro": "0.22.0"},
        question="Should seven outcomes of health and care share one model?",
        findings=(),
        wider=None,
        warnings=[] if converged else ["3 of 21 pairs were compared on fewer than 100 rows."],
    )


@pytest.fixture
def advice() -> SimpleNamespace:
    return make()


@pytest.fixture
def unconverged() -> SimpleNamespace:
    return make(converged=False)


@pytest.fixture
def sampled() -> SimpleNamespace:
    """As if by NUTS: no trace of an optimisation."""
    return make(trace=False)
