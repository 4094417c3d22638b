"""Other ways to learn which task causes which, each from tasks Y (n, T) and inputs X (n, d), all standardised.

Inputs are variables like tasks, known to be exogenous: no edge leads into them. What comes back is about tasks only:
a graph (T, T), row → column, in which an edge without a direction is there in both; or probabilities of edges.
Settings are each library's defaults.

They need the extra ``peers``; their packages are imported where they are used.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from bmtl.causal.equivalence import directed

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

PACKAGES = ("causal-learn", "dagma", "dibs-lib", "lingam")
PARTICLES, STEPS = 20, 2000
FORBIDDEN = 100.0
"""What an edge into an input costs in DiBS's log prior."""


def pc(Y: Array, X: Array) -> Flags:
    """PC with Fisher's z at the level .05 (causal-learn; Spirtes et al., 2000)."""
    from causallearn.graph.GraphNode import GraphNode
    from causallearn.search.ConstraintBased.PC import pc as search
    from causallearn.utils.PCUtils.BackgroundKnowledge import BackgroundKnowledge

    names = [f"y{i}" for i in range(Y.shape[1])] + [f"x{i}" for i in range(X.shape[1])]
    nodes = [GraphNode(name) for name in names]
    known = BackgroundKnowledge()
    for to in nodes[Y.shape[1] :]:
        for node in nodes:
            if node is not to:
                known.add_forbidden_by_node(node, to)
    found = search(np.hstack([Y, X]), node_names=names, background_knowledge=known, show_progress=False)
    return _pattern(found.G.graph)[: Y.shape[1], : Y.shape[1]]


def ges(Y: Array, X: Array) -> Flags:
    """Greedy equivalence search by BIC (causal-learn; Chickering, 2002), which takes no background knowledge.

    That inputs are exogenous directs edges of the class that it finds.
    """
    from causallearn.search.ScoreBased.GES import ges as search

    found = _pattern(search(np.hstack([Y, X]))["G"].graph)
    T = Y.shape[1]
    found[:T, T:] &= ~found[T:, :T].T
    return directed(found)[:T, :T]


def dagma(Y: Array, X: Array) -> Flags:
    """DAGMA with a linear model (Bello et al., NeurIPS 2022): ℓ1 penalty .03, coefficients from .3 on."""
    from dagma.linear import DagmaLinear

    data, T = np.hstack([Y, X]), Y.shape[1]
    barred = tuple((i, j) for i in range(data.shape[1]) for j in range(T, data.shape[1]) if i != j)
    with contextlib.redirect_stderr(io.StringIO()):
        weights = DagmaLinear(loss_type="l2", verbose=False).fit(data, exclude_edges=barred or None)
    return weights[:T, :T] != 0


def direct_lingam(Y: Array, X: Array) -> Flags:
    """DirectLiNGAM (Shimizu et al., JMLR 2011)."""
    from lingam import DirectLiNGAM

    data, T = np.hstack([Y, X]), Y.shape[1]
    known = np.full((data.shape[1], data.shape[1]), -1)
    known[T:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DirectLiNGAM(prior_knowledge=known if X.size else None).fit(data)
    graph: Flags = found.adjacency_matrix_.T[:T, :T] != 0
    return graph


def sorting(Y: Array, X: Array) -> Flags:
    """Sorting by R², then regression on what comes before (R²-SortnRegress; Reisach et al., NeurIPS 2023).

    Its forerunner sorts by variance, which standardised tasks have in common; R² is the share of a task's variance that
    all others explain.
    """
    from sklearn.linear_model import LassoLarsIC

    data, T = np.hstack([Y, X]), Y.shape[1]
    explained = 1 - 1 / np.diag(np.linalg.inv(np.corrcoef(data, rowvar=False)))
    graph, before = np.zeros((T, T), dtype=bool), list(range(T, data.shape[1]))
    for v in np.argsort(explained[:T]):
        if before:
            slopes = LassoLarsIC(criterion="bic").fit(data[:, before], Y[:, v]).coef_
            graph[[u for u, slope in zip(before, slopes, strict=True) if u < T and slope], v] = True
        before.append(int(v))
    return graph


def dibs(Y: Array, X: Array, log_edge: float, seed: int) -> tuple[Flags, Array]:
    """Acyclic particles (n, T, T) of marginal DiBS with BGe (Lorch et al., NeurIPS 2021), and their weights.

    Its edge prior multiplies a graph's probability by p / (1 − p) an edge, with p = 2 k / (T − 1) for k edges a task:
    with k = 2 and T = 5 no graph is possible without all edges. Here the factor is that of `bmtl.EdgePrior`.
    """
    import jax
    from dibs.graph_utils import elwise_acyclic_constr_nograd
    from dibs.inference import MarginalDiBS
    from dibs.models import BGe
    from dibs.models.graph import ErdosReniDAGDistribution

    data, T = np.hstack([Y, X]), Y.shape[1]

    class Prior(ErdosReniDAGDistribution):
        """No edges into inputs."""

        def unnormalized_log_prob_soft(self, *, soft_g):
            return log_edge * soft_g.sum() - FORBIDDEN * soft_g[:, T:].sum()

    n = data.shape[1]
    model = MarginalDiBS(x=jax.numpy.array(data), graph_model=Prior(n), likelihood_model=BGe(n_vars=n))
    found = model.sample(key=jax.random.PRNGKey(seed), n_particles=PARTICLES, steps=STEPS)
    acyclic = np.asarray(elwise_acyclic_constr_nograd(found, n)) == 0
    found = found[acyclic] if acyclic.any() else np.zeros((1, n, n), dtype=found.dtype)
    mixture = model.get_mixture(found)
    weights = np.exp(np.asarray(mixture.logp, dtype=float))
    return np.asarray(mixture.g)[:, :T, :T].astype(bool), weights / weights.sum()


def installed() -> dict[str, str]:
    """Versions of the packages that are there."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


POINTS: dict[str, Callable[[Array, Array], Flags]] = {
    "empty": lambda Y, X: np.zeros((Y.shape[1], Y.shape[1]), dtype=bool), "sorting": sorting, "pc": pc, "ges": ges,
    "dagma": dagma, "lingam": direct_lingam,
}
"""Those that find one graph."""


def _pattern(ends: NDArray[np.int64]) -> Flags:
    """From causal-learn's marks: −1 a tail, 1 an arrowhead at the row's end of the edge to the column."""
    found: Flags = (ends.T == 1) | ((ends == -1) & (ends.T == -1))
    return found

