"""Should these tasks share one model? Screen, arrange, confirm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from bmtl import versions
from bmtl._inputs import require_inputs
from bmtl.advice import reasons
from bmtl.advice._advice import Advice
from bmtl.advice.arrange import Ranked, kind_of, labels_of, name, rank
from bmtl.advice.categories import can_merge
from bmtl.advice.confirm import Trial, Trials
from bmtl.advice.decide import alone, apart, balance, harmed_by, instead, less_sharing, not_one, sharing, total
from bmtl.advice.screen import THRESHOLD, Screen, screen
from bmtl.advice.screen import verdict as verdict_of
from bmtl.advice.widen import told, widen
from bmtl.arrangement import Arrangement
from bmtl.errors import TaskError
from bmtl.fitting import powers
from bmtl.fitting.checkpoint import Checkpoint
from bmtl.fitting.devices import choose
from bmtl.fitting.fit import check_model, choose_trunk
from bmtl.fitting.jobs import Work
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import Settings, resolve
from bmtl.folds import Folds
from bmtl.model import engines
from bmtl.noise import ByGroup
from bmtl.results import Fit
from bmtl.tasks import Tasks

if TYPE_CHECKING:
    from bmtl.causal import EdgePrior, Effects

SHOWN_ARRANGEMENTS = 10


def advise(
    model: Any,
    tasks: Tasks,
    *,
    method: str | Settings = "svi",
    engine: str = "auto",
    device: str = "auto",
    seed: int = 0,
    folds: int | Folds = 5,
    protect: Sequence[str] = (),
    causes: EdgePrior | None = None,
    progress: bool | None = None,
    executor: Executor | None = None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> Advice:
    """Say when to weight, decouple or merge tasks.

    A closed-form screen compares, for every pair, one function (merge), related functions or a common representation
    (weight) and unrelated functions (decouple) by their marginal likelihoods. The pairs' probabilities rank
    arrangements of the whole set. The best one is then fitted beside a trunk for every task (decoupled), one trunk with
    a head each (weighted) and one function for all (merged), and they are compared on cells left out. A harm that
    sharing does there lowers the probabilities of sharing, and a task that it harms beyond noise is recommended apart;
    if one of the others predicts better beyond noise, it is recommended instead. Where sharing harms tasks that are
    then recommended apart, a wider trunk of the same kind is tried too: it may let them share (`Advice.wider`).

    Parameters
    ----------
    model : Model
        With an ``arrangement`` among its fields, which is varied: `bmtl.models.SharedTrunk`.
    tasks : Tasks
        Two tasks or more. Their ``importance`` weights the comparison of arrangements.
    method, engine, device, seed, progress, **options
        As in `bmtl.fit`.
    folds : int or Folds
        What refits leave out: so many parts of the rows at random (where importance sampling cannot leave single cells
        out), or groups of rows, or later rows. A verdict that does not survive `Folds.by_time` but holds for rows
        left out at random is flagged as drifting.
    protect : sequence of str
        Tasks for which no harm beyond noise is accepted, however small or whatever the others gain.
    causes : EdgePrior, optional
        Ask for causes between tasks too (`bmtl.causal`), given what is known of them; ``EdgePrior()`` if nothing is.
        Tasks that an input pushes apart while another does not are then not merged, and reasons say what lies
        downstream of what. Tasks must share rows, and none be categorical.
    executor : concurrent.futures.Executor, optional
        Whose workers fit the arrangements, side by side. The advice is the same with and without.
    checkpoint : str or Path, optional
        A folder, new or left by the same call: what a call that was killed had fitted is not fitted again.

    Returns
    -------
    Advice

    Raises
    ------
    TaskError
        If there are fewer than two tasks or no inputs, a protected task is not there, or the folds do not fit the rows.
    TypeError, ValueError
        If the model has no arrangement to vary or noises by group, an argument is not one there is, or the checkpoint
        is of another call.
    FitError
        If the log-density is not finite where a fit starts or goes, or the executor broke.
    """
    start = time.perf_counter()
    check_model(model)
    if "arrangement" not in {field.name for field in fields(model)}:
        raise TypeError(f"advise varies a model's arrangement, but {type(model).__name__} has none: use SharedTrunk")
    if isinstance(getattr(model, "noise", None), ByGroup):
        raise ValueError("advise weighs each task by one noise: give a model without noise by group")
    tasks.require(2, "advise")
    require_inputs(tasks, "advise")
    folds = Folds.by_row(folds) if isinstance(folds, int) else folds
    folds.split(tasks, seed)
    if unknown := sorted(set(protect) - set(tasks.names)):
        raise TaskError(f"protect names unknown tasks: {unknown}; the tasks are {list(tasks.names)}")
    method_name, settings = resolve(method, options)
    if powers.first(tasks, settings):
        raise ValueError("advise compares posteriors: give method='svi' without a weighting")
    engine, device = choose(engine, device, method_name, engines(model))
    kept = None if checkpoint is None else Checkpoint.of(
        checkpoint, model, tasks, settings, engine, device, seed, folds=folds.spec(tasks)
    )
    work = Work(Progress(progress), executor, kept)

    screened = screen(tasks, linear=bool(getattr(getattr(model, "trunk", None), "linear", False)), seed=seed)
    log_p, sign = _tables(screened, tasks.n_tasks)
    together = can_merge(tasks.families)
    caused = None if causes is None else _effects(tasks, causes, seed)
    if caused is not None:
        one = np.ones((tasks.n_tasks, tasks.n_tasks), dtype=bool)
        for (i, a), (j, b) in combinations(enumerate(tasks.names), 2):
            one[i, j] = one[j, i] = not caused.at_odds(a, b)
        log_p, together = not_one(log_p, one), together & one
    ranked = rank(log_p, together)
    settings = choose_trunk(
        replace(model, arrangement=Arrangement.shared(tasks.names)), tasks, settings, engine, device, seed, work
    )
    trials = Trials(model, tasks, settings, engine, device, seed, folds, work)
    base = {
        "decoupled": Arrangement.decoupled(tasks.names),
        "weighted": Arrangement.shared(tasks.names),
        "merged": _merged(tasks.names, sign, together),
    }
    best = name(ranked.labels[0], tasks.names, sign)
    # The best comes first: whether cells can be left out shows at its fit, which is needed in any case.
    recommended, *tried = trials.run([best, *base.values()])
    harmed = harmed_by(recommended, tried[0], protect)
    crowded = best if harmed else base["weighted"]
    # Of two tasks all arrangements were tried.
    factor = sharing([recommended, *tried[1:]] if tasks.n_tasks == 2 else [recommended], tried[0])
    warnings = []
    drifting: list[str] = []
    if harmed and folds.kind == "time":
        at_random = Trials(model, tasks, settings, engine, device, seed, Folds.by_row(folds.k + 1), work)
        shared, separate = at_random.run([best, base["decoupled"]])
        still = harmed_by(shared, separate, protect)
        drifting = [own for own in harmed if own not in still]
    if drifting:
        warnings.append(
            f"Drifting: sharing does {', '.join(drifting)} no harm on rows left out at random, but harm on later ones."
        )
    if harmed:
        warnings.append(
            f"The screen would share {', '.join(harmed)} with other tasks, but left-out cells speak against it: "
            "recommended apart."
        )
        best = apart(best, harmed)
        recommended, *tried = trials.run([best, *base.values()])
    if better := instead(recommended, tried, protect, lambda own: trials.run([own])[0]):
        chosen = balance(better, recommended)
        warnings.append(
            f"{better.arrangement} predicted left-out cells better than {best}, which the pairs suggest, by "
            f"{chosen[0]:+.3f} ± {chosen[1]:.3f} nats an observation: recommended instead. Sharing can regularise "
            "tasks that are not related, and compete for capacity between tasks that are."
        )
        best, recommended = better.arrangement, better
    if np.any(factor < 1.0):
        log_p = less_sharing(log_p, factor)
        ranked = rank(log_p, together)
    outcomes = dict(zip((*base, "recommended"), (*tried, recommended), strict=True))
    fit = trials.fit(best)
    if fit.problems:
        warnings.append(f"The recommended fit did not converge ({fit.problems}): the advice is undecided.")

    wider = widen(
        trials, crowded, base["decoupled"], [own for own in alone(best) if own not in drifting], protect
    )
    joint = trials.fit(base["weighted"]).relations()
    pairs = _pairs(screened, tasks, np.exp(log_p), joint, harmed, drifting, fit.problems)
    if caused is not None:
        said = [caused.advice(a, b) for a, b in zip(pairs["task_a"], pairs["task_b"], strict=True)]
        pairs["why"] = pairs["why"] + " " + pd.Series(said)
    pairs["why"] = told(wider, crowded, list(zip(pairs["task_a"], pairs["task_b"], strict=True)), pairs["why"])
    differences = _differences(outcomes, tasks)
    of_tasks = _tasks(outcomes, fit, differences)
    of_tasks["why"] = told(wider, crowded, [(own,) for own in tasks.names], of_tasks["why"])
    kind = kind_of(labels_of(best, tasks.names))
    # What the pairs say of such an arrangement, or refits if it is they that chose it.
    probability = float(ndtr(chosen[0] / np.hypot(*chosen[1:]))) if better else ranked.kind[kind]
    verdict = "undecided" if probability < THRESHOLD or (pairs["verdict"] == "undecided").all() else kind
    gain, se = total(recommended, tried[0], np.ones(tasks.n_tasks))
    return Advice(
        pairs=pairs,
        tasks=of_tasks,
        differences=differences,
        arrangement=best,
        arrangements=_arrangements(ranked, tasks, sign),
        verdict=verdict,
        probability=probability,
        reason=reasons.of_set(verdict, ranked.kind, str(best), gain, se, recommended.evidence),
        fit=fit,
        screen=screened,
        evidence=recommended.evidence,
        effects=caused,
        warnings=warnings,
        seconds=time.perf_counter() - start,
        versions=versions.installed(),
        wider=wider,
    )


def _effects(tasks: Tasks, causes: EdgePrior, seed: int) -> Effects:
    from bmtl.causal import dag_posterior, effects  # which needs the screen's features

    return effects(tasks, dag_posterior(tasks, causes, seed=seed), seed=seed)


def _tables(screened: Screen, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities of the relations, ``3 × T × T``, and signs of the correlations, ``T × T``."""
    log_p = np.zeros((3, n, n))
    sign = np.ones((n, n))
    with np.errstate(divide="ignore"):
        for pair in screened.pairs:
            p = np.log([pair.p_merge, pair.p_weight, pair.p_decouple])
            log_p[:, pair.a, pair.b] = log_p[:, pair.b, pair.a] = p
            sign[pair.a, pair.b] = sign[pair.b, pair.a] = -1.0 if pair.correlation < 0 else 1.0
    return log_p, sign


def _merged(names: tuple[str, ...], sign: np.ndarray, together: np.ndarray) -> Arrangement:
    """As few heads as there can be, on one trunk."""
    first = together.argmax(axis=1)
    return name(tuple((0, int(own)) for own in first), names, sign)


def _pairs(
    screened: Screen, tasks: Tasks, p_all: np.ndarray, joint: pd.DataFrame, harmed: list[str], drifting: list[str],
    problems: str,
) -> pd.DataFrame:
    rows = []
    for pair, related in zip(screened.pairs, joint.itertuples(), strict=True):
        a, b = tasks.names[pair.a], tasks.names[pair.b]
        first = verdict_of(pair.p_merge, pair.p_weight, pair.p_decouple)
        p = p_all[:, pair.a, pair.b]
        verdict = verdict_of(*p)
        overruled = [own for own in (a, b) if own in harmed and first in ("merge", "weight")]
        why = reasons.of_pair(pair, first, tasks.names, tasks.inputs, screened)
        if overruled:
            why += " " + reasons.of_harm(overruled, [own for own in overruled if own in drifting], verdict)
            verdict = "undecided" if set(overruled) & set(drifting) else verdict
        if problems:
            why = f"Not converged ({problems}), so not settled. {why}"
            verdict = "undecided"
        rows.append(
            {
                "task_a": a,
                "task_b": b,
                "verdict": verdict,
                "p_merge": float(p[0]),
                "p_weight": float(p[1]),
                "p_decouple": float(p[2]),
                "elpd_gain_a": pair.gain_a,
                "se_a": pair.se_a,
                "elpd_gain_b": pair.gain_b,
                "se_b": pair.se_b,
                "correlation": pair.correlation,
                "correlation_sd": pair.correlation_sd,
                "joint_correlation": related.correlation,
                "joint_low": related.correlation_low,
                "joint_high": related.correlation_high,
                "residual_correlation": pair.residual_correlation,
                "scale": pair.scale,
                "kind": pair.kind,
                "drifting": bool(set(overruled) & set(drifting)),
                "why": why,
            }
        )
    return pd.DataFrame(rows)


def _differences(outcomes: dict[str, Trial], tasks: Tasks) -> pd.DataFrame:
    rows = []
    for arrangement in ("weighted", "merged", "recommended"):
        difference, se = outcomes[arrangement].over(outcomes["decoupled"])
        rows += [
            (own, arrangement, float(difference[t]), float(se[t]), len(outcomes[arrangement].rows[t]))
            for t, own in enumerate(tasks.names)
        ]
    return pd.DataFrame(rows, columns=["task", "arrangement", "difference", "se", "n"])


def _tasks(outcomes: dict[str, Trial], fit: Fit, differences: pd.DataFrame) -> pd.DataFrame:
    tasks = fit.tasks
    table = fit.weights()
    table.insert(2, "n", [len(rows) for rows in tasks.rows])
    for arrangement, trial in outcomes.items():
        table[f"elpd_{arrangement}"], table[f"se_{arrangement}"] = trial.elpd, trial.se
    own = differences[differences["arrangement"] == "recommended"].reset_index(drop=True)
    table["gain"], table["se_gain"] = own["difference"], own["se"]
    table["checks"] = fit.problems or "ok"
    why = []
    for t, own_name in enumerate(tasks.names):
        others = {other: fit.arrangement.relation(own_name, other) for other in tasks.names if other != own_name}
        twins = [other for other, relation in others.items() if relation == "merge"]
        partners = [other for other, relation in others.items() if relation == "weight"]
        gain, se = float(own["difference"][t]), float(own["se"][t])
        why.append(reasons.of_task(partners, twins, gain, se, int(own["n"][t])))
    table["why"] = why
    elpd = [f"{kind}_{arrangement}" for arrangement in outcomes for kind in ("elpd", "se")]
    noise = [f"{kind}{end}" for kind in ("noise", "weight") for end in ("", "_low", "_high")]
    return table[["task", "family", "n", *elpd, "gain", "se_gain", *noise, "checks", "why"]]


def _arrangements(ranked: Ranked, tasks: Tasks, sign: np.ndarray) -> pd.DataFrame:
    shown = ranked.labels[:SHOWN_ARRANGEMENTS]
    p = np.append(ranked.probability, np.nan)[: len(shown) + 1]
    return pd.DataFrame({
        "arrangement": [str(name(labels, tasks.names, sign)) for labels in shown],
        "probability": p[:-1], "times_next": p[:-1] / np.maximum(p[1:], np.finfo(float).tiny),
    })


