"""Whoever does the work, results are the same: an executor that does it backwards, processes, and a dask cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

import bmtl
from bmtl.diagnostics import capacity, restarts, simulation_based_calibration, trajectory
from bmtl.models import CausalTasks, SharedTrunk
from bmtl.trunks import MLP, Identity

pytestmark = pytest.mark.filterwarnings("ignore::bmtl.ConvergenceWarning")

QUICK = {"restarts": 1, "max_steps": 1000, "draws": 50, "folds": 2}


@pytest.fixture(scope="module")
def two() -> bmtl.Tasks:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(50, 2))
    Y = X @ np.array([[1.0, 0.2], [0.3, -1.0]]) + 0.5 * rng.normal(size=(50, 2))
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a", "b"])


@pytest.fixture(scope="module")
def advice(two) -> bmtl.Advice:
    return bmtl.advise(SharedTrunk(MLP((3,))), two, **QUICK)


def same_advice(one: bmtl.Advice, other: bmtl.Advice) -> None:
    for name in ("pairs", "tasks", "differences", "arrangements"):
        assert getattr(one, name).equals(getattr(other, name))
    assert (one.verdict, one.reason, one.warnings) == (other.verdict, other.reason, other.warnings)
    same_draws(one.fit, other.fit)


def same_draws(one: bmtl.Fit, other: bmtl.Fit) -> None:
    assert one.settings == other.settings
    for name, own in one.draws.sites.items():
        np.testing.assert_array_equal(own, other.draws.sites[name])


def test_advice(backwards: Executor, two, advice) -> None:
    same_advice(bmtl.advise(SharedTrunk(MLP((3,))), two, executor=backwards, **QUICK), advice)


@pytest.mark.slow  # every run is compiled
def test_a_fit_of_several_runs(backwards: Executor, two) -> None:
    settings: dict[str, Any] = {"method": "nuts", "chains": 1, "warmup": 40, "draws": 40}
    model = CausalTasks(Identity())
    same_draws(bmtl.fit(model, two, executor=backwards, **settings), bmtl.fit(model, two, **settings))


def test_diagnostics(backwards: Executor, two) -> None:
    trunk = MLP((3,))
    each = [restarts(trunk, two, runs=9, epochs=30, executor=own) for own in (None, backwards)]
    for ours, theirs in zip(*[own.pointwise for own in each], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    tables = [capacity(trunk, two, widths=(2, 4), runs=2, epochs=30, executor=own).table() for own in (None, backwards)]
    assert tables[0].equals(tables[1])
    gaps = [trajectory(trunk, two, runs=2, epochs=30, every=10, executor=own) for own in (None, backwards)]
    assert gaps[0].gaps().equals(gaps[1].gaps())
    for name, own in gaps[0].measures["shared"].items():
        np.testing.assert_array_equal(own, gaps[1].measures["shared"][name])


@pytest.mark.parametrize("method", [pytest.param("nuts", marks=pytest.mark.slow), "svi"])
def test_calibration(method: str, backwards: Executor, two, monkeypatch) -> None:
    monkeypatch.setattr("bmtl.diagnostics.sbc.TOGETHER", 3)
    options: dict[str, Any] = {"warmup": 20, "draws": 20} if method == "nuts" else {"max_steps": 500, "draws": 20}
    found = [
        simulation_based_calibration(SharedTrunk(Identity()), two, method, 6, executor=own, **options)
        for own in (None, backwards)
    ]
    np.testing.assert_array_equal(found[0].ranks, found[1].ranks)
    # The parts have random numbers of their own.
    assert len(np.unique(found[0].ranks[:, 0])) == 6


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        yield executor


@pytest.mark.slow
def test_processes(processes: Executor, two, advice) -> None:
    same_advice(bmtl.advise(SharedTrunk(MLP((3,))), two, executor=processes, **QUICK), advice)
    found = [capacity(MLP((3,)), two, widths=(2, 4), runs=2, epochs=30, executor=own) for own in (None, processes)]
    assert found[0].table().equals(found[1].table())


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A client of a scheduler with two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install 'bmtl[cluster]'")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as own,
        distributed.Client(own) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:ResourceWarning", "ignore:Sending large graph:UserWarning")
def test_a_cluster_that_loses_a_worker(cluster: Any, two) -> None:
    killed: list[int] = []

    def kill() -> None:
        # A worker that is in the middle of a fit.
        while not killed:
            busy = [address for address, tasks in cluster.processing().items() if tasks]
            if busy:
                killed.append(cluster.run(os.getpid, workers=busy[:1])[busy[0]])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    found = bmtl.advise(SharedTrunk(Identity()), two, executor=cluster.get_executor(), **QUICK)
    thread.join()
    assert killed
    same_advice(found, bmtl.advise(SharedTrunk(Identity()), two, **QUICK))
