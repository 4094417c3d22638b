"""Tasks that act on each other.

Story: inputs become features on one trunk, and each task reads them with its own head, as in `SharedTrunk`. Besides, a
task may be moved by the outcomes of others, its causes in a directed acyclic graph G:

    G ~ p(G | outcomes),   θ ~ trunk,   w_t ~ relation,   a_t ~ HalfNormal,   c_t ~ Normal,   σ_t ~ noise
    b_ut ~ Normal(0, s_t²),   v_u = (outcome of u − its mean) / its standard deviation, of a lognormal u of its log
    η_t(x) = c_t + a_t · φ(x)·w_t/√k + Σ_{u → t in G} b_ut v_u
    y_t ~ family(η_t(x), σ_t)

so that p(y_1 … y_T | x, G) = Π_t p(y_t | φ(x), y of the causes of t): a cause counts with its observed outcome. s_t is
1 for a standardised outcome and else the family's usual spread of η_t.

The graph is summed out before: its posterior is that of `bmtl.causal.dag_posterior` (Pearl, *Causality*, 2009, chapters
1 to 3, on what G means). The program runs once under each of a few graphs that stand for it (Fearnhead & Clifford,
2003), and the draws of all are pooled in proportion to their weights. The probabilities of graphs are therefore those
of that posterior, in which an input does a line or a smooth curve to a task; given a graph, functions are the trunk's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmtl.arrangement import Arrangement
from bmtl.causal import EdgePrior
from bmtl.causal.runs import explained, graph_runs, prior_graphs
from bmtl.data import Data
from bmtl.model import entering, functions, observe
from bmtl.noise import ByGroup, HalfNormal, Scale
from bmtl.relations import Independent, Relation
from bmtl.runs import Runs
from bmtl.tasks import Tasks
from bmtl.trunks import MLP, Trunk


@dataclass(frozen=True)
class CausalTasks:
    """Tasks on one trunk that act on each other along a graph that is inferred.

    Tasks must share rows, and none be categorical. Rows on which a task is missing are left out, with a warning; cells
    marked as ``intervened`` act on other tasks and are not explained themselves. Log-likelihoods, `Fit.elpd` and
    posterior predictive draws are of each task given the observed outcomes of its causes; `Fit.predict` and `Fit.do`
    draw causes before effects.

    Parameters
    ----------
    trunk, relation, noise, amplitude
        As in `SharedTrunk`; one noise a task.
    edges : EdgePrior
        What is known of the graph. Where it leaves one graph, that graph is fitted.
    graphs : int
        Graphs that are fitted at the most. Where the posterior has more, those of much probability keep it, and others,
        drawn in proportion to theirs, stand for the rest: no edge is left out on average over seeds. A MAP fit is of
        the likeliest graph alone.

    Raises
    ------
    ValueError
        If noise is to differ by group of rows, or no graph is to be fitted.
    """

    trunk: Trunk = field(default_factory=MLP)
    edges: EdgePrior = field(default_factory=EdgePrior)
    relation: Relation = field(default_factory=Independent)
    noise: Scale = field(default_factory=HalfNormal)
    amplitude: Scale = field(default_factory=HalfNormal)
    graphs: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.noise, ByGroup):
            raise ValueError("CausalTasks needs one noise a task, not noises by group")
        if self.graphs < 1:
            raise ValueError(f"CausalTasks needs graphs ≥ 1, got {self.graphs}")

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return Arrangement.shared(names)

    def explained(self, tasks: Tasks) -> Tasks:
        return explained(tasks)

    def runs(self, tasks: Tasks, seed: int) -> Runs:
        return graph_runs(tasks, self.edges, self.graphs, seed)

    def given_prior(self, tasks: Tasks, draws: int, seed: int) -> dict[str, np.ndarray]:
        return {"edge": prior_graphs(tasks, self.edges, draws, seed)}

    def program(self, e: Any, data: Data) -> None:
        design = data.design
        plan = design.plan(self.arranged(design.names))
        phi = self.trunk.sample(e, data.x, plan.n_trunks)
        heads = self.relation.sample(e, plan, design, phi.shape[-1], self.amplitude)
        f = functions(e, data, phi, heads.w, plan)
        # Cause × effect; slopes of edges that are not there are nothing but their prior.
        edge, scale = e.given("edge", data), e.asarray(design.amplitude_scale)
        slope = e.sample("slope", e.dist.Normal(0.0 * scale, scale).expand([design.n_tasks] * 2).to_event(2))
        causes = e.xp.matmul(e.xp.matrix_transpose(edge * slope), entering(e, data))
        observe(e, data, f, heads, plan, self.noise, causes)
