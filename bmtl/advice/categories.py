"""Categorical tasks in the screen, which knows tasks of one linear predictor only.

A task of K categories is seen as K tasks of yes or no: this category, or another. Each of them is compared with the
other task (category by category, if that has the same ones), and the probabilities of a verdict are pooled by their
geometric mean, as opinions that are not independent (Genest & Zidek, "Combining probability distributions", 1986). Of
the numbers that go with a verdict, those of the most telling category are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmtl.advice.candidate import Candidate
from bmtl.advice.features import Dictionary
from bmtl.families import Family

if TYPE_CHECKING:
    from bmtl.advice.screen import PairEvidence

SMALLEST = 1e-6
"""Floor of probabilities that are pooled, so that one category cannot rule a verdict out."""


@dataclass(frozen=True)
class Views:
    """One task as one or several candidates of one linear predictor each.

    Attributes
    ----------
    family : Family
    codes : tuple of int
        The categories that occur; empty if the task is not categorical.
    candidates : tuple of Candidate
        One a category, or one.
    """

    family: Family
    codes: tuple[int, ...]
    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, tasks: Any, t: int, dictionary: Dictionary) -> Views:
        family = tasks.families[t]
        if family.n_predictors == 1:
            return cls(family, (), (Candidate(tasks, t, dictionary),))
        codes = tuple(int(code) for code in np.unique(tasks.y[t]))
        return cls(family, codes, tuple(Candidate(tasks, t, dictionary, code) for code in codes))

    @property
    def signal(self) -> float:
        """Posterior probability that the task depends on the inputs at all: that of its most telling category."""
        return max(candidate.signal() for candidate in self.candidates)

    @property
    def r2(self) -> float:
        """Posterior mean of the share of variance explained, mean over categories."""
        return float(np.mean([candidate.r2() for candidate in self.candidates]))


def mergeable(a: Family, b: Family) -> bool:
    """Whether two tasks can be one function: both have one linear predictor, or one for each of the same categories."""
    return a.n_predictors == b.n_predictors and (a.n_predictors == 1 or a.labels == b.labels)


def can_merge(families: Sequence[Family]) -> NDArray[np.bool_]:
    """`mergeable` for every pair, (T, T)."""
    return np.array([[mergeable(a, b) for b in families] for a in families])


def compare(a: Views, b: Views, judge: Callable[[Candidate, Candidate], PairEvidence]) -> PairEvidence:
    """Everything about one pair, given what ``judge`` says of two candidates."""
    together = list(product(range(len(a.candidates)), range(len(b.candidates))))
    if a.codes and mergeable(a.family, b.family):
        together = [(i, j) for i, j in together if a.codes[i] == b.codes[j]] or together
    found = [judge(a.candidates[i], b.candidates[j]) for i, j in together]
    if not a.codes and not b.codes:
        return found[0]
    if not mergeable(a.family, b.family):
        found = [_without_merge(own) for own in found]
    p = np.array([(own.p_merge, own.p_weight, own.p_decouple) for own in found])
    possible = p.max(axis=0) > 0
    pooled = np.where(possible, np.exp(np.mean(np.log(np.maximum(p, SMALLEST)), axis=0)), 0.0)
    merge, weight, decouple = (float(own) for own in pooled / pooled.sum())
    share = sum(own.p_correlated for own in found) / max(sum(own.p_weight for own in found), SMALLEST)
    telling = min(found, key=lambda own: own.p_decouple)
    return replace(
        telling, p_merge=merge, p_weight=weight, p_decouple=decouple, p_correlated=weight * share,
        p_representation=weight * (1.0 - share), kind="same up to scale",
    )


def _without_merge(own: PairEvidence) -> PairEvidence:
    """The evidence with one function as a way of being related: one predictor of several is not the whole task."""
    return replace(
        own, p_merge=0.0, p_weight=own.p_weight + own.p_merge, p_correlated=own.p_correlated + own.p_merge
    )
