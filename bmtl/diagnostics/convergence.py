"""Did a fit converge? One table, the same for every method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from bmtl.fitting.draws import Draws

MAX_RHAT = 1.01
MIN_ESS = 400.0
MIN_BFMI = 0.3
MAX_K = 0.7
"""Thresholds of Vehtari et al. (Bayesian Analysis, 2021) and of Betancourt (2016) for E-BFMI."""

COLUMNS = ["check", "of", "value", "limit", "passed", "needed"]

MIN_DRAWS_K = 25
"""Draws whose largest fifth are the five that a Pareto tail needs at the least."""

GOOD = ("at most", "at least")


def checks(draws: Draws, quantities: dict[str, np.ndarray]) -> pd.DataFrame:
    """Convergence checks.

    Parameters
    ----------
    draws : Draws
    quantities : dict
        Name to ``chains × draws × …``: identified quantities (noise, intercepts, linear predictors). A trunk's own
        weights are not: they may be permuted or flipped without changing any prediction.

    Returns
    -------
    DataFrame
        Columns check, of, value, limit, passed, needed. A check that is not *needed* limits what the fit may be used
        for (k̂ of a guide: no importance sampling) but does not make it unconverged.
    """
    rows = _sampled(draws, quantities) if draws.stats else []
    if draws.elbo is not None:
        rows += _optimised(draws)
    return pd.DataFrame(rows, columns=COLUMNS)


def _sampled(draws: Draws, quantities: dict[str, np.ndarray]) -> list[tuple]:
    rows: list[tuple] = []
    for name, value in quantities.items():
        flat = value.reshape(*value.shape[:2], -1).astype(float)
        if flat.shape[-1] == 0:
            continue
        axes = {"chain_axis": 0, "draw_axis": 1}
        rhat = float(np.max(array_stats.rhat(flat, **axes)))
        bulk = float(np.min(array_stats.ess(flat, method="bulk", **axes)))
        tail = float(np.min(array_stats.ess(flat, method="tail", prob=(0.05, 0.95), **axes)))
        rows += [
            ("R-hat", name, rhat, f"≤ {MAX_RHAT}", rhat <= MAX_RHAT, True),
            ("bulk ESS", name, bulk, f"≥ {MIN_ESS:.0f}", bulk >= MIN_ESS, True),
            ("tail ESS", name, tail, f"≥ {MIN_ESS:.0f}", tail >= MIN_ESS, True),
        ]
    divergences = int(np.sum(draws.stats["diverging"]))
    rows.append(("divergences", "chains", float(divergences), "= 0", divergences == 0, True))
    if "energy" in draws.stats:
        bfmi = float(np.min(array_stats.bfmi(draws.stats["energy"].astype(float))))
        rows.append(("E-BFMI", "chains", bfmi, f"≥ {MIN_BFMI}", bfmi >= MIN_BFMI, True))
    return rows


def _optimised(draws: Draws) -> list[tuple]:
    assert draws.elbo is not None and draws.trace is not None
    steps = float(np.sum(np.isfinite(draws.trace[int(np.argmax(draws.elbo))])))
    rows: list[tuple] = [("settled", "ELBO", steps, "chunks of steps until it settled", draws.settled, True)]
    if draws.log_ratio is not None:
        k = guide_k(draws)
        rows.append(("Pareto k̂", "guide", k, f"≤ {MAX_K}", k <= MAX_K, False))
    if len(draws.elbo) > 1:
        finite = draws.elbo[np.isfinite(draws.elbo)]
        rows.append(("ELBO spread", "restarts", float(np.ptp(finite)), "reported, nats", True, False))
        if len(finite) < len(draws.elbo):
            wanted = f"= {len(draws.elbo)}"
            rows.append(("finite ELBO", "restarts", float(len(finite)), wanted, False, False))
    return rows


def guide_k(draws: Draws) -> float:
    """Pareto k̂ of the importance ratios p/q of a guide (Yao et al., "Yes, but did it work?", ICML 2018).

    NaN where there are too few draws to tell, infinite where the ratios are so far apart that they underflow.
    """
    assert draws.log_ratio is not None
    ratio = draws.log_ratio[np.isfinite(draws.log_ratio)]
    if len(ratio) < MIN_DRAWS_K:
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        # psislw takes log-likelihoods: the weights it smooths are their inverses.
        k = float(array_stats.psislw(-ratio, r_eff=1.0, axis=-1)[1])
    return k if np.isfinite(k) else float("inf")


def problems(table: pd.DataFrame) -> str:
    """The needed checks that failed, in words; empty if none."""
    failed = table[table["needed"] & ~table["passed"]]
    return "; ".join(
        f"{row.check} of {row.of} is {row.value:.3g} (wanted: {row.limit})" for row in failed.itertuples()
    )
