"""What `bmtl.advise` gives back."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bmtl.advice.screen import Screen
from bmtl.advice.widen import Wider
from bmtl.arrangement import Arrangement
from bmtl.errors import TaskError
from bmtl.findings import Finding, Finds
from bmtl.results import Fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bmtl.causal import Effects


@dataclass(frozen=True, eq=False)
class Advice:
    """Whether tasks should share one model, with the evidence.

    Attributes
    ----------
    pairs : DataFrame
        A row a pair: task_a, task_b, verdict, p_merge, p_weight, p_decouple, elpd_gain_a, se_a, elpd_gain_b, se_b
        (nats over all cells of the task, from knowing the other, with single cells left out), correlation and its sd
        (of the functions), joint_correlation, joint_low, joint_high (the same from one fit of all tasks on one trunk,
        with a central 89% interval), residual_correlation (of the noises on shared rows), scale and kind (how b
        relates to a if they are one function), drifting (only later rows speak against it), why.
    tasks : DataFrame
        A row a task: task, family, n, elpd and se under the arrangements decoupled, weighted, merged and recommended,
        gain and se_gain (recommended against decoupled, paired), noise and weight with intervals, checks, why.
    differences : DataFrame
        ELPD of each arrangement against decoupled, task by task: task, arrangement, difference, se, n.
    arrangement : Arrangement
        The one recommended.
    arrangements : DataFrame
        The most probable ones by their pairs: arrangement, probability, times_next (how many times as probable as the
        next one).
    verdict : {"merge", "weight", "decouple", "mixed", "undecided"}
        The answer for the whole set.
    probability : float
        Of that kind of arrangement (of the most probable kind, if undecided).
    reason : str
    fit : Fit
        Of all cells under the recommended arrangement.
    screen : Screen
        The closed-form evidence on every pair.
    evidence : str
        How cells were left out for the comparison of arrangements.
    effects : Effects or None
        What tasks do to each other, if causes were asked for.
    warnings : list of str
    seconds : float
        Wall time.
    versions : dict
        Package to version.
    wider : Wider or None
        What a wider trunk does to tasks that sharing the given one harms and that are recommended apart: its ``trunk``,
        and whether it is ``enough`` for them to share it. None if there are no such tasks, or the trunk has no width.
    findings : tuple of Finding
        What diagnostics found, if they were asked (`with_findings`).
    """

    pairs: pd.DataFrame
    tasks: pd.DataFrame
    differences: pd.DataFrame
    arrangement: Arrangement
    arrangements: pd.DataFrame
    verdict: str
    probability: float
    reason: str
    fit: Fit
    screen: Screen
    evidence: str
    effects: Effects | None
    warnings: list[str]
    seconds: float
    versions: dict[str, str]
    wider: Wider | None = None
    findings: tuple[Finding, ...] = ()

    def with_findings(self, *results: Finds) -> Advice:
        """The same advice, knowing what diagnostics of these tasks found: `why` and the report then tell it.

        Parameters
        ----------
        *results : Restarts, Capacity, Conflict, Trajectory, Branching, Drift
            Results of `bmtl.diagnostics`, or anything with their method ``findings``.

        Raises
        ------
        TypeError
            If something has no findings.
        TaskError
            If a finding is about a task that the advice is not about.
        """
        found = list(self.findings)
        for own in results:
            if not isinstance(own, Finds):
                raise TypeError(f"a result of bmtl.diagnostics is needed, got {type(own).__name__}, without findings")
            found += own.findings()
        self._require({name for own in found for name in own.tasks})
        return replace(self, findings=tuple(found))

    @property
    def question(self) -> str:
        """What was asked, as a title."""
        return f"Should these {len(self.tasks)} tasks share one model?"

    def why(self, a: str, b: str | None = None) -> str:
        """What decided about a pair of tasks, or where a task stands, in sentences with the figures.

        What diagnostics found of the two, or of the one, comes last (`with_findings`).

        Raises
        ------
        TaskError
            If there is no such task, or the two are one.
        """
        self._require({a} if b is None else {a, b})
        found = [own.says for own in self.findings if set(own.tasks) == ({a} if b is None else {a, b})]
        if b is None:
            return " ".join([str(self.tasks.loc[self.tasks["task"] == a, "why"].iloc[0]), *found])
        pair = self.pairs[self.pairs[["task_a", "task_b"]].isin([a, b]).all(axis=1)]
        if pair.empty:
            raise TaskError(f"a pair needs two tasks, got {a!r} twice")
        own = pair.iloc[0]
        return " ".join([f"{own['task_a']} and {own['task_b']}: {own['verdict']}. {own['why']}", *found])

    def _require(self, asked: set[str]) -> None:
        names = list(self.tasks["task"])
        if unknown := sorted(asked - set(names)):
            raise TaskError(f"no task {unknown[0]!r}; the tasks are {names}")

    def plot(self) -> Figure:
        """Arrangement, ELPD by arrangement, correlations and noises in one figure."""
        from bmtl.advice import plots

        return plots.overview(self)

    def report(self, path: str | Path) -> None:
        """Write everything to one self-contained HTML file, atomically.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        from bmtl.report.html import write

        write(self, path)

    def __str__(self) -> str:
        def number(value: float) -> str:
            return f"{value:,.2f}".replace("-0.00", "0.00")

        pairs = self.pairs[["task_a", "task_b", "verdict", "p_merge", "p_weight", "p_decouple", "correlation"]]
        tasks = self.tasks[
            ["task", "family", "n", "elpd_decoupled", "elpd_weighted", "elpd_merged", "elpd_recommended", "gain",
             "se_gain", "noise"]
        ]
        def filled(line: str, further: str = "  ") -> str:
            return textwrap.fill(
                line, 116, initial_indent="  ", subsequent_indent=further, break_on_hyphens=False
            )

        notes = [self.reason, *(f"WARNING: {warning}" for warning in self.warnings)]
        lines = [
            self.question,
            *([filled(self.wider.says)] if self.wider else []),
            f"  {self.verdict} (probability {self.probability:.2f}): {self.arrangement}",
            *map(filled, notes),
            "",
            "Pairs",
            pairs.to_string(index=False, float_format=number),
            "",
            f"Tasks: expected log predictive density by arrangement, nats ({self.evidence})",
            tasks.to_string(index=False, float_format=number),
        ]
        if self.findings:
            said = (f"{', '.join(own.tasks)} ({own.diagnostic}): {own.says}" for own in self.findings)
            lines += ["", "Diagnostics"]
            lines += [filled(own, "    ") for own in said]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)
