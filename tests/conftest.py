"""Fixtures and marks shared by all tests."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
# Many tests fit the same program to data of the same shape: XLA compiles it once for all of them.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(20_240_607)


@pytest.fixture(scope="session")
def five() -> Any:
    """Five tasks, one of each family, that share 24 rows: cells missing, counts with exposures."""
    from bmtl.tasks import Tasks

    rng = np.random.default_rng(11)
    n = 24
    X = rng.normal(size=(n, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    f = (X[:, 0] + 0.1 * X[:, 1])[:, None]
    exposure = np.ones((n, 5))
    exposure[:, 3:] = rng.uniform(0.5, 3.0, (n, 2))
    rate = exposure * np.exp(0.4 * f)
    Y = np.column_stack([
        30.0 + 7.0 * (f[:, 0] + rng.normal(size=n)),
        -2.0 * f[:, 0] + rng.standard_t(4, n),
        (f[:, 0] + rng.logistic(size=n) > 0).astype(float),
        rng.poisson(rate[:, 3]),
        rng.poisson(rate[:, 4] * rng.gamma(2.0, 0.5, n)),
    ])
    Y[rng.random((n, 5)) < 0.2] = np.nan
    families = ["gaussian", "student_t", "bernoulli", "poisson", "negative_binomial"]
    return Tasks.from_arrays(X, Y, families, names=["size", "tail", "any", "count", "burst"], exposure=exposure)


@pytest.fixture(scope="session")
def seven() -> Any:
    """Seven tasks, one of each family that is not in `five`, that share 40 rows: cells missing, labels, trials."""
    import pandas as pd

    from bmtl.tasks import Tasks

    rng = np.random.default_rng(14)
    n = 40
    X = rng.normal(size=(n, 2))
    f = 0.8 * X[:, 0] - 0.5 * X[:, 1]
    trials, years = rng.integers(1, 9, n), rng.uniform(0.5, 3.0, n)
    frame = pd.DataFrame({
        "a": X[:, 0],
        "b": X[:, 1],
        "income": np.exp(9.0 + f + 0.5 * rng.normal(size=n)),
        "cost": rng.gamma(2.0, 0.5 * np.exp(f)),
        "share": rng.beta(6.0 / (1.0 + np.exp(-f)), 6.0 / (1.0 + np.exp(f))).clip(0.01, 0.99),
        "wins": rng.binomial(trials, 1.0 / (1.0 + np.exp(-f))).astype(float),
        "colour": np.array(["red", "green", "blue"])[np.argmax(np.c_[f, 0 * f, -f] + rng.gumbel(size=(n, 3)), axis=1)],
        "grade": np.searchsorted([-1.0, 0.0, 1.0], f + rng.logistic(size=n)).astype(float),
        "visits": rng.poisson(years * np.exp(0.7 + 0.5 * f)) * (rng.random(n) > 0.3).astype(float),
        "trials": trials,
        "years": years,
    })
    families = {
        "income": "lognormal", "cost": "gamma", "share": "beta", "wins": "binomial", "colour": "categorical",
        "grade": "ordinal", "visits": "zero_inflated_poisson",
    }
    for name in families:
        frame.loc[rng.random(n) < 0.15, name] = None
    return Tasks.from_frame(frame, ["a", "b"], families, exposure={"wins": "trials", "visits": "years"})


@pytest.fixture(scope="session")
def grouped() -> Callable[[str], Any]:
    """Three groups of rows as three tasks of one family (the long layout), some outcomes missing."""
    import pandas as pd

    from bmtl.tasks import Tasks

    def make(family: str) -> Any:
        rng = np.random.default_rng(12)
        n = 30
        x = rng.normal(size=(n, 2))
        exposure = rng.uniform(0.5, 3.0, n)
        f = x[:, 0] - 0.5 * x[:, 1]
        noise = rng.standard_t(4, n)
        y = {
            "gaussian": 3.0 + 2.0 * f + noise,
            "student_t": 3.0 + 2.0 * f + noise,
            "laplace": 3.0 + 2.0 * f + noise,
            "bernoulli": (f + noise > 0).astype(float),
            "poisson": rng.poisson(exposure * np.exp(0.3 * f)).astype(float),
            "negative_binomial": rng.poisson(exposure * np.exp(0.3 * f) * rng.gamma(2.0, 0.5, n)).astype(float),
            "lognormal": np.exp(3.0 + f + noise),
            "gamma": rng.gamma(2.0, np.exp(f)),
            "beta": rng.beta(np.exp(1.0 + 0.5 * f), np.exp(1.0 - 0.5 * f)),
            "binomial": rng.binomial(np.ceil(exposure).astype(int), 1.0 / (1.0 + np.exp(-f))).astype(float),
            "zero_inflated_poisson": rng.poisson(exposure * np.exp(1 + 0.3 * f)) * (rng.random(n) > 0.3).astype(float),
            "ordinal": np.searchsorted([-1.0, 0.0, 1.0], f + noise).astype(float),
            "categorical": np.argmax(np.c_[f, 0 * f, -f] + rng.gumbel(size=(n, 3)), axis=1).astype(float),
        }[family]
        y[[4, 17]] = np.nan
        exposure = np.ceil(exposure) if family == "binomial" else exposure
        frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y, "time": exposure, "school": list("uvw") * 10})
        counts = family in ("poisson", "negative_binomial", "zero_inflated_poisson", "binomial")
        return Tasks.from_groups(frame, ["a", "b"], "y", "school", family, exposure="time" if counts else None)

    return make


@pytest.fixture(scope="session")
def pair() -> Any:
    """Two Gaussian tasks that are linear in two shared inputs; 40 rows."""
    from bmtl.tasks import Tasks

    rng = np.random.default_rng(13)
    X = rng.normal(size=(40, 2))
    Y = X @ np.array([[1.0, -0.5], [0.5, 2.0]]) + rng.normal(size=(40, 2)) * [0.7, 1.5] + [3.0, -8.0]
    return Tasks.from_arrays(X, Y, ["gaussian", "gaussian"], names=["u", "v"])


@pytest.fixture(scope="session")
def programs() -> SimpleNamespace:
    """Programs run by hand: ``draw`` sites from the prior, and the log-joint of a model at given sites.

    ``draw(model, tasks, seed, values=None)`` gives site values; ``numpyro``/``pyro`` ``(model, tasks, sites,
    values=None)`` the log-joint, with other arrays in the place of those of the tasks if ``values`` are given.
    """
    import jax
    import numpyro
    import pyro
    import torch
    from numpyro.infer.util import log_density
    from pyro.poutine.util import site_is_subsample

    from bmtl.data import Data, Design, arrays
    from bmtl.engine.numpyro import NumPyroEngine
    from bmtl.engine.pyro import PyroEngine
    from bmtl.model import engines

    def draw(model: Any, tasks: Any, seed: int = 0, values: Any = None) -> dict[str, np.ndarray]:
        design = Design.of(tasks)
        values = arrays(tasks, design) if values is None else values
        if "numpyro" not in engines(model):
            data = Data(design, {name: torch.as_tensor(value) for name, value in values.items()})
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                found = pyro.poutine.trace(model.program).get_trace(PyroEngine(), data)
            latent = {name: found.nodes[name] for name in found.stochastic_nodes}
            return {name: own["value"].numpy() for name, own in latent.items() if not site_is_subsample(own)}
        data = Data(design, {name: jax.numpy.asarray(value) for name, value in values.items()})
        with numpyro.handlers.trace() as found, numpyro.handlers.seed(rng_seed=seed):
            model.program(NumPyroEngine(), data)
        return {
            name: np.array(site["value"]) for name, site in found.items()
            if site["type"] == "sample" and not site["is_observed"]
        }

    def on_numpyro(model: Any, tasks: Any, sites: Mapping[str, Any], values: Any = None, scale: float = 1.0) -> Any:
        design = Design.of(tasks)
        values = arrays(tasks, design) if values is None else values
        data = Data(design, {name: jax.numpy.asarray(value) for name, value in values.items()}, scale)
        return log_density(lambda: model.program(NumPyroEngine(), data), (), {}, dict(sites))[0]

    def pyro_trace(model: Any, tasks: Any, sites: Mapping[str, Any], values: Any = None, scale: float = 1.0) -> Any:
        design = Design.of(tasks)
        values = arrays(tasks, design) if values is None else values
        data = Data(design, {name: torch.as_tensor(value) for name, value in values.items()}, scale)
        held = {name: torch.as_tensor(value) for name, value in sites.items()}
        program = pyro.poutine.condition(lambda: model.program(PyroEngine(), data), data=held)
        found = pyro.poutine.trace(program).get_trace()
        found.compute_log_prob()
        return found

    def on_pyro(*args: Any, **kwargs: Any) -> Any:
        return pyro_trace(*args, **kwargs).log_prob_sum()

    return SimpleNamespace(draw=draw, numpyro=on_numpyro, pyro=on_pyro, pyro_trace=pyro_trace)


@pytest.fixture(scope="session")
def made(programs: SimpleNamespace) -> Callable[..., Any]:
    """A fit that nobody fitted: draws scattered around one prior draw, with all that its method reports."""
    from bmtl.fitting import MAP, NUTS, SVI
    from bmtl.fitting.draws import Draws
    from bmtl.model import engines
    from bmtl.results import Fit

    def make(model: Any, tasks: Any, settings: Any, seed: int = 0) -> Any:
        rng = np.random.default_rng(seed)
        shape = (settings.chains if isinstance(settings, NUTS) else 1, settings.draws)
        sites = {
            name: (value * np.exp(0.1 * rng.normal(size=(*shape, *value.shape)))).astype(np.float32)
            for name, value in programs.draw(model, tasks, seed).items()
        }
        if isinstance(settings, NUTS):
            stats = {"diverging": np.zeros(shape, dtype=bool), "energy": rng.normal(size=shape).astype(np.float32)}
            draws = Draws(sites, stats=stats, seconds=1.5)
        else:
            trace = rng.normal(size=(settings.restarts, 4))
            trace[:, 0] = np.nan
            ratio = rng.normal(size=shape[1]) if isinstance(settings, SVI) else None
            elbo = rng.normal(size=settings.restarts).astype(np.float32)
            draws = Draws(sites, {}, trace, elbo, ratio, settled=isinstance(settings, MAP), seconds=1.5)
        engine = "numpyro" if "numpyro" in engines(model) else "pyro"
        return Fit(model, tasks, settings, engine, "cpu", seed, draws)

    return make


@pytest.fixture
def backwards() -> Executor:
    """An executor whose last call is done first, on copies of what it is given, as another process would do it."""

    class Backwards(Executor):
        def __init__(self) -> None:
            self._due: list[tuple[Future[Any], bytes]] = []

        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            self._due.append((future, pickle.dumps((function, args, kwargs))))
            if len(self._due) == 1:
                threading.Thread(target=self._work).start()
            return future

        def _work(self) -> None:
            # All calls of one piece of work are submitted at once.
            count = 0
            while count < len(self._due):
                count = len(self._due)
                time.sleep(0.1)
            while self._due:
                future, work = self._due.pop()
                function, args, kwargs = pickle.loads(work)
                try:
                    future.set_result(function(*args, **kwargs))
                except Exception as error:
                    future.set_exception(error)
                time.sleep(0.01)

    return Backwards()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a ``gpu`` test where there is no CUDA device, or fail it where one was asked for."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("BMTL_REQUIRE_GPU") == "1":
        pytest.fail("BMTL_REQUIRE_GPU=1, but torch sees no CUDA device", pytrace=False)
    pytest.skip("torch sees no CUDA device")
