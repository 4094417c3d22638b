"""From left-out cells to a decision: who is harmed, what else predicts better, and what both do to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import log_ndtr, logsumexp

from bmtl.advice.arrange import codes, labels_of
from bmtl.advice.confirm import Trial
from bmtl.arrangement import Arrangement

HARM = 2.0
"""Paired standard errors by which refits must speak against an arrangement to overrule the screen."""

SMALL = 4.0
"""Differences in ELPD below this many nats are too small to overrule anything (Sivula et al., 2020)."""

SLIGHT = 0.1
"""A harm an observation less than this share of what another task of the trunk gains an observation is none."""

LEAST = -700.0
"""Log probabilities below this count as this, where what was more probable is ruled out."""

BETTER = 2.0
"""Paired standard errors by which another arrangement that was tried must beat the screen's to be recommended."""


def harmed_by(recommended: Trial, decoupled: Trial, protect: Sequence[str]) -> list[str]:
    """Tasks that share a trunk and predict left-out cells worse for it, beyond noise.

    And notably, unless they are protected: by more than `SMALL` nats, and not by next to nothing an observation where
    another task of the trunk, of few cells, gains much.
    """
    difference, se = recommended.over(decoupled)
    each = difference / np.array([len(own) for own in recommended.rows])
    gains = np.where(difference > HARM * se, each, 0.0)
    names = recommended.tasks.names
    found = []
    for trunk in recommended.arrangement.trunks:
        members = [names.index(own) for head in trunk for own in head]
        slight = SLIGHT * max(gains[members])
        found += [
            t for t in members
            if len(members) > 1 and difference[t] < -HARM * se[t]
            and (names[t] in protect or (difference[t] < -SMALL and each[t] < -slight))
        ]
    return [names[t] for t in sorted(found)]


def alone(arrangement: Arrangement) -> list[str]:
    """Tasks on a trunk of their own."""
    return [trunk[0][0] for trunk in arrangement.trunks if sum(map(len, trunk)) == 1]


def apart(arrangement: Arrangement, names: list[str]) -> Arrangement:
    """The same arrangement with some tasks on trunks of their own."""
    kept = [
        tuple(head for head in (tuple(own for own in joined if own not in names) for joined in trunk) if head)
        for trunk in arrangement.trunks
    ]
    return Arrangement(
        (*(trunk for trunk in kept if trunk), *(((own,),) for own in names)), arrangement.flipped - set(names)
    )


def better_than(recommended: Trial, tried: Sequence[Trial], protect: Sequence[str]) -> Trial | None:
    """The best other of those tried, decoupled first, if it predicts better beyond noise and harms nobody."""
    found = []
    for trial in tried:
        gain, se, small = balance(trial, recommended)
        if gain > max(BETTER * se, small) and not harmed_by(trial, tried[0], protect):
            found.append((gain, trial))
    return max(found, key=lambda own: own[0])[1] if found else None


def instead(
    recommended: Trial, tried: Sequence[Trial], protect: Sequence[str], run: Callable[[Arrangement], Trial]
) -> Trial | None:
    """What to recommend instead of the pairs' own arrangement, if anything.

    That is `better_than`. A task that is alone, since it is related to no other, stays out of what others share then,
    unless they predict better with it beyond noise: `run` tries them without.
    """
    better = better_than(recommended, tried, protect)
    if better is None:
        return None
    strangers = [own for own in alone(recommended.arrangement) if own not in alone(better.arrangement)]
    if not strangers:
        return better
    without = run(apart(better.arrangement, strangers))
    return better_than(without, [tried[0], better], protect) or without


def balance(trial: Trial, other: Trial) -> tuple[float, float, float]:
    """What tasks gain an observation, mean over tasks weighted by importance: with its paired standard error, and what
    `SMALL` nats in every task, one way or the other, would be.

    A task of few cells counts as much as one of many: it is predictions to come that matter.
    """
    cells = np.array([len(own) for own in trial.rows])
    weights = trial.tasks.importance / trial.tasks.importance.sum() / cells
    gain, se = total(trial, other, weights)
    return gain, se, SMALL * float(np.sqrt(np.sum(weights**2)))


def by_row(trial: Trial, other: Trial) -> np.ndarray:
    """Differences in log predictive density of every task, rows × T: 0 where it has no cell that was left out.

    Cells of one row are not independent: rows are what standard errors are of.
    """
    gaps = np.zeros((trial.tasks.n_rows, trial.tasks.n_tasks))
    for t, (rows, ours, theirs) in enumerate(zip(trial.rows, trial.pointwise, other.pointwise, strict=True)):
        np.add.at(gaps[:, t], rows, ours - theirs)
    return gaps[np.unique(np.concatenate(trial.rows))]


def total(trial: Trial, other: Trial, weights: np.ndarray) -> tuple[float, float]:
    """Weighted difference in ELPD of all tasks, and its paired standard error."""
    gaps = by_row(trial, other) @ weights
    return float(gaps.sum()), float(np.sqrt(len(gaps) * gaps.var()))


def sharing(shared: Sequence[Trial], decoupled: Trial) -> np.ndarray:
    """For every two tasks the factor on the odds of merge and of weight from what that does to predictions, 2 × T × T.

    The difference in ELPD d of both tasks together has a paired standard error s, to which differences of `SMALL` nats
    a task are added as noise; with a flat prior on the true difference the odds that it is a gain are Φ(d/s) / Φ(−d/s).
    A gain says nothing of how functions relate (a shared trunk also regularises), a harm makes sharing less probable.
    1 where tasks do not share.
    """
    n = decoupled.tasks.n_tasks
    factor = np.ones((2, n, n))
    for trial in shared:
        gaps = by_row(trial, decoupled)
        each, centred = gaps.sum(axis=0), gaps - gaps.mean(axis=0)
        spread = centred.T @ centred
        own = np.diag(spread)
        difference = each[:, None] + each
        z = difference / np.sqrt(np.maximum(own[:, None] + own + 2.0 * spread, 0.0) + 2.0 * SMALL**2)
        odds = np.exp(np.minimum(log_ndtr(z) - log_ndtr(-z), 0.0))
        code = codes(labels_of(trial.arrangement, trial.tasks.names))
        factor = np.where(np.stack([code == 0, code == 1]), np.minimum(factor, odds), factor)
    return factor


def not_one(log_p: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Log probabilities of the relations, ``3 × T × T``, where it is known which tasks cannot be one function."""
    rest = np.maximum(log_p, LEAST)
    rest[0] = -np.inf
    known: np.ndarray = np.where(one, log_p, rest - logsumexp(rest, axis=0))
    return known


def less_sharing(log_p: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Log probabilities of the relations after what refits say of sharing, ``3 × T × T``."""
    with np.errstate(divide="ignore"):
        adjusted = log_p + np.concatenate([np.log(factor), np.zeros_like(factor[:1])])
    total: np.ndarray = logsumexp(adjusted, axis=0)
    return adjusted - total
