"""What a fit says of causes between its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl.model import Model, has_causes
from bmtl.tasks import Tasks

if TYPE_CHECKING:
    from bmtl.causal import Consequences, Intervention
    from bmtl.causal.fitted import FittedDraws
    from bmtl.fitting.draws import Draws


class CausalFit:
    """The part of `bmtl.Fit` that is for models whose outcomes act on each other, such as `bmtl.models.CausalTasks`.

    A fit of another model raises TypeError.
    """

    if TYPE_CHECKING:
        model: Model
        tasks: Tasks
        seed: int
        draws: Draws

        @property
        def flat(self) -> dict[str, np.ndarray]: ...

    @property
    def causal(self) -> bool:
        """Whether the model's outcomes act on each other."""
        return has_causes(self.draws.sites)

    @property
    def _graphs(self) -> str:
        """How many graphs draws are of, and how much of the posterior over graphs these are, in words."""
        count = len(np.unique(self.flat["edge"], axis=0))
        return f"{count}, together of probability {float(self.draws.constants['graph_probability']):.2f}"

    @cached_property
    def effects(self) -> Consequences[FittedDraws]:
        """What tasks do to each other, averaged over the posterior over their graphs: tables and interventions.

        Besides the methods of the fit it has `total` and `relations`; see `bmtl.causal.Consequences`. Functions of the
        inputs are the trunk's; their straight lines (`mechanisms`) are least squares on all inputs.

        Raises
        ------
        TypeError
            If the outcomes of the model do not act on each other.
        """
        if not self.causal:
            raise TypeError(f"the outcomes of {type(self.model).__name__} do not act on each other: fit a CausalTasks")
        from bmtl.causal.consequences import Consequences
        from bmtl.causal.fitted import FittedDraws

        draws = FittedDraws.of(self.model, self.tasks, self.flat)
        return Consequences(self.tasks, draws, self.draws.constants["edge_probability"])

    def edges(self) -> pd.DataFrame:
        """Which task acts on which, and by how much; see `bmtl.causal.Consequences.edges`."""
        return self.effects.edges()

    def do(
        self, values: Mapping[str, Any], X: Any = None, *, exposure: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> Intervention:
        """Outcomes where tasks are set from outside; see `bmtl.causal.Consequences.do`."""
        return self.effects.do(values, X, exposure=exposure, seed=self.seed if seed is None else seed)

    def paths(self, a: str, b: str) -> pd.DataFrame:
        """Directed paths from a to b; see `bmtl.causal.Consequences.paths`."""
        return self.effects.paths(a, b)

    def mechanisms(self, inputs: Sequence[str] | None = None, *, direct: bool = False) -> pd.DataFrame:
        """Inputs that push tasks apart; see `bmtl.causal.Consequences.mechanisms`."""
        return self.effects.mechanisms(inputs, direct=direct)
