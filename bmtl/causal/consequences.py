"""What a posterior over graphs says tasks do to each other: effects, interventions, paths, mechanisms at odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from bmtl._frames import quoted
from bmtl._inputs import check_names
from bmtl.causal import paths, words
from bmtl.causal.draws import ClosedDraws, Draws, as_gaussian, drawn
from bmtl.causal.intervene import Intervention, intervene, summary
from bmtl.causal.posterior import DagPosterior
from bmtl.causal.split import PARTS, split
from bmtl.causal.subsets import Array
from bmtl.errors import TaskError
from bmtl.families import Family
from bmtl.tasks import Tasks

D = TypeVar("D", bound=Draws)

MOST_ROWS = 200
"""Rows of the tasks on which interventions are drawn where no new inputs are given."""


@dataclass(frozen=True, eq=False)
class Consequences(Generic[D]):
    """Joint draws of a graph and the coefficients on its edges, and what follows from them.

    Intervals hold 89% of the draws. An outcome enters its effects in its own units, a lognormal one as its logarithm.
    ``slope`` columns say by how much one unit of a cause moves the linear predictor of an effect: its mean if it is
    Gaussian, Student-t or Laplace, its logarithm if lognormal, the logarithm or logit of its mean in the other
    families. ``std`` columns say the same for one standard deviation of the cause, in standard deviations of the effect
    if it is Gaussian, lognormal, Student-t or Laplace. Causes are those of the model: no cause in common that is
    neither a task nor an input, no cycle, and as far as `DagPosterior.equivalence` says that the data identify
    directions.

    Attributes
    ----------
    tasks : Tasks
    draws : Draws
        Graphs (draws, T, T), slopes and the other coefficients, in the user's units.
    edge_probabilities : (T, T) array
        Row → column.
    """

    tasks: Tasks
    draws: D
    edge_probabilities: Array

    def edges(self) -> pd.DataFrame:
        """Every edge that is possible: cause, effect, its probability p, and its slope given that it is there.

        Columns slope, slope_low, slope_high, std, std_low, std_high; NaN for an edge that no graph drawn has. Likeliest
        first.
        """
        p, names = self.edge_probabilities, self.tasks.names
        rows = []
        for a, b in zip(*np.nonzero(p > 0), strict=True):
            own = self.draws.slopes[self.draws.graphs[:, a, b], a, b]
            std = own * self.draws.standardised[a, b]
            rows.append((names[a], names[b], min(float(p[a, b]), 1.0), *summary(own), *summary(std)))
        columns = ["cause", "effect", "p", "slope", "slope_low", "slope_high", "std", "std_low", "std_high"]
        found = pd.DataFrame(rows, columns=columns)
        return found.sort_values("p", ascending=False, kind="stable", ignore_index=True)

    def do(
        self, values: Mapping[str, Any], X: Any = None, *, exposure: Mapping[str, Any] | None = None, seed: int = 0
    ) -> Intervention:
        """Outcomes where tasks are set from outside, and so cut off from their causes, averaged over graphs.

        Parameters
        ----------
        values : mapping of str to number (or label)
            The tasks that are set. With none, outcomes as they come.
        X : data frame or array of shape (n, columns), optional
            Inputs in the user's units. Default: those of the rows that have all tasks, of 200 of them if there are
            more, with their exposures.
        exposure : mapping of str to number or (n,) array, optional
            Of tasks that take one. Default with X: 1.
        seed : int
            Of the rows, and of outcomes.

        Raises
        ------
        TaskError
            If a name is unknown, a value is outside its family's support, inputs do not fit, or a binomial task has
            no number of trials.
        """
        if not isinstance(values, Mapping):
            raise TaskError(f"values must map names of tasks to what they are set to, got {values!r}")
        own, rng = self.draws.columns, np.random.default_rng(seed)
        fixed = {self.tasks.index(name): self._value(name, value) for name, value in values.items()}
        if X is None:
            n = len(own.rows)
            rows = np.sort(rng.choice(n, MOST_ROWS, replace=False)) if n > MOST_ROWS else np.arange(n)
            Z, exposures = self.tasks.Z[own.rows[rows]], own.exposure[rows].copy()
        else:
            Z = self.tasks.standardise(X)
            exposures = np.ones((len(Z), len(own.names)))
        self._expose(exposures, exposure or {}, fixed, given=X is None)
        outcomes, means = intervene(self.draws, fixed, self.draws.at(Z), exposures, rng)
        names = own.names
        return Intervention(
            {names[t]: value for t, value in fixed.items()}, dict(zip(names, outcomes, strict=True)),
            dict(zip(names, means, strict=True)),
        )

    def total(self, cause: str, effect: str) -> pd.Series:
        """The total effect of one task on the mean outcome of another, through all directed paths.

        The derivative of the effect's mean (of an ordinal task's mean code) by the cause as it enters, averaged over
        rows, with tasks between moving as their means do. For Gaussian, Student-t and Laplace tasks that is the
        entry of (I − B)⁻¹, the contrast of do(c + 1) and do(c).

        Returns
        -------
        Series
            p_none (no directed path), mean, low, high: averaged over graphs, with zero where there is no path; and
            std, std_low, std_high of the linear predictor.
        """
        a, b = self._pair(cause, effect)
        eta, mean = self.draws.moved(np.zeros((len(self.draws), self.tasks.n_tasks)), a)
        none = sum(len(at) for graph, at, _ in self.draws.distinct if not paths.reachable(graph)[a, b])
        values = (none / len(self.draws), *summary(mean[:, b]), *summary(eta[:, b] * self.draws.standardised[a, b]))
        index = ["p_none", "mean", "low", "high", "std", "std_low", "std_high"]
        return pd.Series(values, index=index, name=f"{cause} → {effect}")

    def paths(self, a: str, b: str) -> pd.DataFrame:
        """Directed paths from a to b: path, its probability p, and, given that it is there, the product of its slopes.

        Tasks between that are not Gaussian pass on what their means pass on, on average over rows. Likeliest first.
        """
        return paths.table(self.draws, *self._pair(a, b))

    def relations(self, a: str, b: str) -> pd.DataFrame:
        """What two tasks are to each other: the posterior probability of each elementary confound.

        Columns relation, form, p, via (the tasks that play the part of the dots with a probability of .5 or more) and
        p_via (the largest such probability of any task). Relations: *edge*; *pipe*, a directed path through other
        tasks; *fork*, a task with directed paths to both, neither through the other; *collider*, a task to which both
        have one; *descendant*, an edge or a pipe; *apart*, neither downstream of the other and no fork. They do not
        exclude each other.
        """
        return paths.relations(self.draws, *self._pair(a, b))

    def mechanisms(self, inputs: Sequence[str] | None = None, *, direct: bool = False) -> pd.DataFrame:
        """For every input and pair of tasks the probability that it moves them in opposite directions.

        An effect is the slope, by one unit of the encoded input, of the straight line through what it does to a linear
        predictor: in total, by itself and through the task's causes (as in `total`), or the direct one beside them.

        Parameters
        ----------
        inputs : sequence of str, optional
            Encoded inputs, of `Tasks.inputs`. Default: all.

        Returns
        -------
        DataFrame
            Columns input, task_a, task_b, effect_a and effect_b with their _low and _high, p_opposite, and p_same (of
            effects in the same direction; an input that does not act on one of the two adds to neither). Largest
            p_opposite first, and of equal ones the largest smaller standardised effect.
        """
        chosen = self.tasks.inputs if inputs is None else check_names(inputs, "input")
        unknown = [name for name in chosen if name not in self.tasks.inputs]
        if unknown:
            raise TaskError(f"no input {quoted(unknown)}; the inputs are {quoted(self.tasks.inputs, shown=20)}")
        rows, sizes = [], []
        for name in chosen:
            moved = self._input_effects(name, direct)
            deviations = moved * self.tasks.x_scale[self.tasks.inputs.index(name)] / self.draws.columns.unit
            told = [summary(own) for own in moved.T]
            for a, b in combinations(range(self.tasks.n_tasks), 2):
                signs = np.sign(moved[:, a]) * np.sign(moved[:, b])
                chances = float(np.mean(signs < 0)), float(np.mean(signs > 0))
                rows.append((name, self.tasks.names[a], self.tasks.names[b], *told[a], *told[b], *chances))
                sizes.append(float(np.abs(deviations[:, [a, b]].mean(axis=0)).min()))
        columns = [
            "input", "task_a", "task_b", "effect_a", "effect_a_low", "effect_a_high", "effect_b", "effect_b_low",
            "effect_b_high", "p_opposite", "p_same",
        ]
        found = pd.DataFrame(rows, columns=columns)
        order = np.lexsort((-np.array(sizes), -found["p_opposite"].to_numpy()))
        return found.iloc[order].reset_index(drop=True)

    def _input_effects(self, name: str, direct: bool) -> Array:
        """Effects on linear predictors, (S, T), of one unit of an encoded input."""
        j = self.tasks.inputs.index(name)
        return self.draws.moved(self.draws.lines(j) / self.tasks.x_scale[j], direct=direct)[0]

    def _pair(self, a: str, b: str) -> tuple[int, int]:
        pair = self.tasks.index(a), self.tasks.index(b)
        if a == b:
            raise TaskError(f"two different tasks are needed, got {a!r} twice")
        return pair

    def _value(self, name: str, value: Any) -> float:
        """A value that a task is set to, as it is modelled."""
        family: Family = self.tasks.families[self.tasks.index(name)]
        refused = f"task {name!r} ({family.name}) cannot be set to {value!r}"
        if family.labels:
            if str(value) not in family.labels:
                raise TaskError(f"{refused}; its labels are {quoted(family.labels)}")
            return float(family.labels.index(str(value)))
        number = isinstance(value, (int, float, np.integer, np.floating, np.bool_))
        if not number or not family.valid(np.array([float(value)])).all():
            raise TaskError(f"{refused}: it takes {family.support}")
        return float(value)

    def _expose(
        self, exposures: Array, exposure: Mapping[str, Any], fixed: Mapping[int, float], *, given: bool
    ) -> None:
        """Write exposures of tasks into the columns of an (n, T) array, and check them."""
        for name, values in exposure.items():
            t, values = self.tasks.index(name), np.asarray(values, dtype=float)
            if not self.tasks.families[t].takes_exposure:
                raise TaskError(f"task {name!r} ({self.tasks.families[t].name}) takes no exposure")
            if values.shape not in ((), (len(exposures),)):
                raise TaskError(f"exposure of {name!r} must be a number or {len(exposures)}, got shape {values.shape}")
            exposures[:, t] = values
        for t, (name, family) in enumerate(zip(self.tasks.names, self.tasks.families, strict=True)):
            if not family.takes_exposure:
                continue
            if family.needs_exposure and not given and name not in exposure:
                raise TaskError(f"task {name!r} ({family.name}) needs an exposure: {family.exposures}")
            least = np.full(len(exposures), fixed.get(t, 0.0))
            if not family.valid_exposure(least, exposures[:, t]).all():
                raise TaskError(f"exposures of {name!r} ({family.name}) must be {family.exposures}")


@dataclass(frozen=True, eq=False)
class Effects(Consequences[ClosedDraws]):
    """Consequences of a posterior over graphs, with coefficients in closed form.

    Attributes
    ----------
    posterior : DagPosterior
    """

    posterior: DagPosterior
    _seed: int = field(repr=False)

    def split(self, a: str, b: str) -> pd.DataFrame:
        """The correlation of two tasks on the rows of all tasks, split into parts that sum to it.

        *inputs*: what inputs do to both, directly or through other tasks. Of the rest *edge*: what an edge between the
        two passes on; *other tasks*: pipes through and forks from them; *unexplained*: correlation of what is left
        of each task, such as of a common cause that is not in the data. The correlation is that of outcomes as they
        enter effects. Tasks that are not Gaussian, lognormal, Student-t or Laplace are taken for Gaussian ones of
        the same parents. Rows on which any task was set from outside are left out. `bmtl.causal.split` has the
        formulas.

        Returns
        -------
        DataFrame
            Columns part, correlation, low, high; the last row is the sum, which is observed.

        Raises
        ------
        TaskError
            If a name is unknown, or next to all rows have a task that was set.
        """
        parts, whole = split(self.draws.columns, *self._gaussian, *self._pair(a, b))
        rows = [(name, *summary(own)) for name, own in zip(PARTS, parts.T, strict=True)]
        return pd.DataFrame([*rows, ("sum", whole, whole, whole)], columns=["part", "correlation", "low", "high"])

    def advice(self, a: str, b: str) -> str:
        """Whether to condition on one of two tasks, and what speaks against merging them, in sentences.

        Relations are stated from a probability of .9. Merging is refused where, each with a probability of .95 or more,
        an input moves the two in opposite directions and another in the same: no change of sign makes them one.
        """
        self._pair(a, b)
        table = self.posterior.equivalence
        row = table[table["task_a"].isin([a, b]) & table["task_b"].isin([a, b])].iloc[0]
        own = self._of_pair(a, b)
        if not own["task_a"].isin([a]).all():
            own = own.rename(columns={"effect_a": "effect_b", "effect_b": "effect_a"})
        unexplained = float(self.split(a, b).set_index("part")["correlation"]["unexplained"])
        return words.of_pair(a, b, self.relations(a, b), float(row["p_unidentified"]), own, unexplained)

    def at_odds(self, a: str, b: str) -> bool:
        """Whether merging two tasks is refused; see `advice`."""
        self._pair(a, b)
        return words.at_odds(self._of_pair(a, b))

    def _of_pair(self, a: str, b: str) -> pd.DataFrame:
        table = self._mechanisms
        return table[table["task_a"].isin([a, b]) & table["task_b"].isin([a, b])]

    @cached_property
    def _mechanisms(self) -> pd.DataFrame:
        return self.mechanisms()

    @cached_property
    def _gaussian(self) -> tuple[Array, Array]:
        return as_gaussian(self.draws, self.posterior._scores, self._seed)


def effects(tasks: Tasks, posterior: DagPosterior, *, graphs: int = 500, draws: int = 2, seed: int = 0) -> Effects:
    """What tasks do to each other, averaged over the posterior over their graphs.

    Graphs are drawn from their posterior, and given each the coefficients of every task: first which groups of inputs
    act, in proportion to their evidence, then intercept, slopes and noise from the conjugate posterior for Gaussian
    and lognormal tasks, else from the normal approximation at the mode that the evidence is computed with. (There the
    noise is its estimate at the mode, but for tasks with heavy tails.)

    Parameters
    ----------
    tasks : Tasks
        Those that the posterior was made from.
    posterior : DagPosterior
    graphs : int
        Graphs drawn. Probabilities of paths have a standard error of √(p (1 − p) / graphs); those in `Effects.edges`
        are the posterior's own.
    draws : int
        Draws of coefficients given each graph.
    seed : int

    Raises
    ------
    TaskError
        If the posterior is that of other tasks, or a number is not a whole one ≥ 1.

    Examples
    --------
    >>> import bmtl, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, a = rng.normal(size=(2, 500))
    >>> a = a + 2 * x
    >>> Y = np.column_stack([a, 3 * a + rng.normal(size=500)])
    >>> tasks = bmtl.Tasks.from_arrays(x[:, None], Y, ["gaussian"] * 2, names=["a", "b"])
    >>> posterior = bmtl.causal.dag_posterior(tasks, bmtl.EdgePrior(tiers=[["a"], ["b"]]))
    >>> found = bmtl.causal.effects(tasks, posterior)
    >>> round(found.total("a", "b")["mean"])
    3
    """
    for what, value in (("graphs", graphs), ("draws", draws)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise TaskError(f"{what} must be a whole number ≥ 1, got {value!r}")
    _reject_others(tasks, posterior)
    found = drawn(posterior._scores, posterior.draw(graphs, seed), draws, seed)
    return Effects(tasks, found, posterior.edges.to_numpy(), posterior, seed)


def _reject_others(tasks: Tasks, posterior: DagPosterior) -> None:
    """Raise `TaskError` unless the posterior is of these tasks."""
    own = posterior._scores.columns
    if tasks.names != own.names:
        raise TaskError(f"the posterior is of other tasks: {quoted(own.names)}, not {quoted(tasks.names)}")
    for t, name in enumerate(tasks.names):
        at = np.searchsorted(tasks.rows[t], own.rows)
        there = bool(at.max() < len(tasks.y[t])) and np.array_equal(tasks.rows[t][at], own.rows)
        if not there or tasks.families[t] != own.families[t] or not np.array_equal(tasks.y[t][at], own.y[:, t]):
            raise TaskError(f"the posterior is of other tasks: outcomes of {name!r} differ from those it was made from")
