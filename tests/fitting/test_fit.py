"""Fits: reproducible, honest about convergence, the same on both engines, and stopped by Ctrl-C."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import jax
import numpy as np
import pytest
import torch

import bmtl
from bmtl.data import Data, Design, arrays
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.fitting import MAP, SVI, numpyro_guide, numpyro_latent, numpyro_svi, pyro_latent, pyro_svi
from bmtl.fitting.settings import is_point
from bmtl.fitting.settling import Settling
from bmtl.models import Merged, SharedTrunk
from bmtl.noise import Known
from bmtl.trunks import MLP, Fourier, Identity, Linear

MODEL = SharedTrunk(Identity())
SHORT = {"max_steps": 500, "restarts": 1, "draws": 50}
# Short fits are not meant to have settled.
unsettled = pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")
GUIDES = ("mean_field", "low_rank", "full_rank", "flow")


def same_sites(a, b) -> bool:
    return all(np.array_equal(a.draws.sites[name], b.draws.sites[name]) for name in a.draws.sites)


def numpyro_svi_of(model, tasks, settings):
    design = Design.of(tasks)
    held = {name: jax.numpy.asarray(value) for name, value in arrays(tasks, design).items()}
    return numpyro_svi.NumPyroSVI(model, design, settings, held), held


@pytest.mark.parametrize("guide", GUIDES)
def test_vectorised_elbo_equals_the_loop(guide, grouped) -> None:
    svi, held = numpyro_svi_of(SharedTrunk(Linear(2)), grouped("poisson"), SVI(guide=guide, trunk="point"))
    params = svi.start(jax.random.PRNGKey(0), held)
    keys = jax.random.split(jax.random.PRNGKey(1), 6)
    loop = np.array([svi.negative_elbo(params, key, held) for key in keys])
    vectorised = jax.vmap(lambda key: svi.negative_elbo(params, key, held))(keys)
    np.testing.assert_allclose(vectorised, loop, rtol=1e-4)
    assert np.ptp(loop) > 1e-3


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "lanes"])
def test_side_by_side_runs_equal_runs_alone(grouped, together) -> None:
    """Restarts and folds take the same steps as each would alone, in calls of their own or as lanes of one."""
    settings = SVI(trunk="guide")
    tasks = grouped("gaussian")
    svi, held = numpyro_svi_of(SharedTrunk(Linear(2)), tasks, settings)
    mask = {name: value for name, value in held.items() if name.startswith("mask/")}
    fixed = {name: value for name, value in held.items() if name not in mask}
    folds = [mask, {name: value & (np.arange(tasks.n_rows) % 4 > 0) for name, value in mask.items()}]
    starts = [svi.start(key, held) for key in jax.random.split(jax.random.PRNGKey(0), 2)]
    parts = list(itertools.product(starts, folds))
    keys = jax.random.split(jax.random.PRNGKey(3), len(parts))
    runs = [
        jax.tree.map(lambda value: value[None], numpyro_svi.Run(start, fold, key))
        for (start, fold), key in zip(parts, keys, strict=True)
    ]

    def ends(runs) -> tuple[np.ndarray, np.ndarray]:
        settling = Settling(sum(len(run.keys) for run in runs), 100.0, 3)
        found = svi.train(runs, fixed, jax.random.PRNGKey(1), settling, lambda *_, **__: None)
        return np.concatenate([state.params["loc"] for state in found]), np.stack(settling.trace, axis=1)

    joined = [jax.tree.map(lambda *own: np.concatenate(own), *runs)] if together else runs
    loc, trace = ends(joined)
    alone = [ends([run]) for run in runs]
    # Lanes of one program sum in another order.
    equal = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3) if together else np.testing.assert_array_equal
    equal(loc, np.concatenate([own for own, _ in alone]))
    np.testing.assert_allclose(trace, np.concatenate([own for _, own in alone]), rtol=1e-3)
    assert len(np.unique(np.round(loc[:, 0], 4))) == len(parts)


def test_a_settled_run_stays_while_others_go_on(grouped) -> None:
    svi, held = numpyro_svi_of(SharedTrunk(Linear(2)), grouped("gaussian"), SVI(trunk="guide"))
    start = svi.start(jax.random.PRNGKey(0), held)
    keys = jax.random.split(jax.random.PRNGKey(3), 2)
    runs = [jax.tree.map(lambda value: value[None], numpyro_svi.Run(start, {}, key)) for key in keys]
    settling = Settling(2, 100.0, 2)
    settling.stage[0] = 3
    first, second = svi.train(runs, held, jax.random.PRNGKey(1), settling, lambda *_, **__: None)
    np.testing.assert_array_equal(first.params["loc"][0], start["loc"])
    assert np.abs(np.asarray(second.params["loc"][0] - start["loc"])).max() > 0.01


@pytest.mark.parametrize("trunk", ["point", "guide"])
@pytest.mark.parametrize("model", [SharedTrunk(MLP((3, 2))), SharedTrunk(Fourier(4)), Merged(Identity())], ids=repr)
def test_flat_log_density_on_both_engines(model, trunk, five) -> None:
    """Same sites in the same places, same transforms and Jacobians: one flat vector, one number."""
    design, settings = Design.of(five), SVI(trunk=trunk)
    values = arrays(five, design)
    tensors = {name: torch.as_tensor(value) for name, value in values.items()}

    def program(engine, held, scale=1.0):
        model.program(engine, Data(design, held, scale))

    with torch.random.fork_rng():
        ours = pyro_latent.Latent(program, "cpu", tensors, partial(is_point, settings))
    theirs = numpyro_latent.Latent(partial(program, NumPyroEngine()), values, partial(is_point, settings))
    assert (ours.size, ours.n_point) == (theirs.size, theirs.n_point)
    trunk_size = sum(v.size for n, v in theirs.constrain(np.zeros(theirs.size)).items() if n.startswith("trunk_"))
    assert ours.n_point == (trunk_size if trunk == "point" else 0)
    for seed in range(3):
        z = np.random.default_rng(seed).normal(size=ours.size).astype(np.float32) * 0.5
        here, there = ours.constrain(torch.tensor(z)), theirs.constrain(z)
        assert list(here) == list(there)
        for name, value in here.items():
            np.testing.assert_allclose(value, there[name], rtol=1e-5, atol=1e-6)
        for scale in (1.0, 3.0):
            value = float(theirs.log_density(z, values, scale))
            assert float(ours.log_density(torch.tensor(z), tensors, scale)) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("guide", GUIDES[:3])
def test_guides_have_the_same_entropy_and_density_on_both_engines(guide, pair) -> None:
    settings = SVI(guide=guide)
    design = Design.of(pair)
    with torch.random.fork_rng():
        other = pyro_svi.PyroSVI(MODEL, design, settings, arrays(pair, design))
    tensors = other.guide.named(other.flat[0].detach())
    params = {name: value.numpy() for name, value in tensors.items()}
    ours = numpyro_guide.posterior(params)
    theirs = other.guide.posterior(tensors)
    z = params["loc"] + np.float32(0.03)
    with torch.no_grad():
        entropy, density = float(theirs.entropy()), float(theirs.log_prob(torch.tensor(z)))
    assert float(ours.entropy()) == pytest.approx(entropy, rel=1e-4)
    assert float(ours.log_prob(z)) == pytest.approx(density, rel=1e-4)


@unsettled
@pytest.mark.parametrize("engine", ["numpyro", "pyro"])
def test_unobserved_cells_do_not_change_a_fit(engine, five) -> None:
    """SVI ends at the same bits, whatever stands where nothing was observed."""
    design, settings = Design.of(five), SVI(trunk="point", **SHORT)
    values = arrays(five, design)
    others = dict(values)
    for name in values:
        kind, _, block = name.partition("/")
        if kind in ("y", "exposure"):
            other = 0.0 if name == "y/bernoulli" else 5.0
            others[name] = np.where(values[f"mask/{block}"], values[name], np.float32(other))
    assert any(not np.array_equal(values[name], others[name]) for name in values)
    run = numpyro_svi.run if engine == "numpyro" else pyro_svi.run
    found = [run(MODEL, design, held, settings, 0)[0] for held in (values, others)]
    assert all(np.array_equal(found[0].sites[name], found[1].sites[name]) for name in found[0].sites)
    np.testing.assert_array_equal(found[0].trace, found[1].trace)


@unsettled
@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("numpyro", {"method": "svi", **SHORT}),
        ("pyro", {"method": "svi", **SHORT}),
        ("numpyro", {"method": "svi", **SHORT, "batch_size": 16}),
        ("pyro", {"method": "svi", **SHORT, "batch_size": 16}),
        ("numpyro", {"method": "nuts", "chains": 2, "warmup": 20, "draws": 20, "max_tree_depth": 5}),
        ("pyro", {"method": "nuts", "chains": 1, "warmup": 10, "draws": 8}),
        ("numpyro", {"method": "map", "max_steps": 250, "restarts": 1}),
        ("pyro", {"method": "map", "max_steps": 250, "restarts": 1}),
    ],
    ids=str,
)
def test_same_seed_same_numbers(engine, options, pair) -> None:
    first, again, other = (bmtl.fit(MODEL, pair, engine=engine, seed=seed, **options) for seed in (3, 3, 4))
    assert first.engine == engine
    assert same_sites(first, again)
    assert not same_sites(first, other)


@unsettled
@pytest.mark.parametrize(
    "options",
    [{"method": "svi", **SHORT}, {"method": "nuts", "chains": 1, "warmup": 5, "draws": 8}],
    ids=["svi", "nuts"],
)
def test_global_random_states_are_left_alone(options, pair) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    bmtl.fit(MODEL, pair, engine="pyro", seed=0, **options)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


@pytest.mark.parametrize("engine", ["numpyro", "pyro"])
@pytest.mark.parametrize("method", ["svi", "map"])
def test_a_fit_cut_short_says_so(engine, method, pair) -> None:
    with pytest.warns(bmtl.ConvergenceWarning, match="SharedTrunk: settled of ELBO"):
        fit = bmtl.fit(MODEL, pair, method=method, engine=engine, max_steps=250, restarts=1)
    assert not fit.converged and "settled" in fit.problems
    assert "NO: settled" in repr(fit)
    if method == "svi":
        assert fit.elpd()["converged"].tolist() == [False, False]


@pytest.mark.parametrize("engine", ["numpyro", "pyro"])
def test_an_elbo_that_is_not_finite_is_an_error(engine, pair) -> None:
    with pytest.raises(bmtl.FitError, match="ELBO of SharedTrunk is not finite"):
        bmtl.fit(MODEL, pair, engine=engine, learning_rate=1e20, max_steps=500, restarts=2)


def test_nuts_cut_short_says_so(pair) -> None:
    with pytest.warns(bmtl.ConvergenceWarning, match="ESS"):
        fit = bmtl.fit(MODEL, pair, method="nuts", chains=2, warmup=30, draws=30)
    assert not fit.converged and "NO: " in repr(fit)
    assert not fit.elpd()["converged"].any()


@pytest.mark.parametrize("engine", ["numpyro", pytest.param("pyro", marks=pytest.mark.slow)])
def test_restarts_are_all_reported_and_the_best_is_kept(engine, pair) -> None:
    fit = bmtl.fit(MODEL, pair, engine=engine, restarts=2, seed=1)
    assert fit.converged
    assert fit.draws.elbo.shape == (2,) and fit.draws.trace.shape[0] == 2
    # The mean of log p − log q of the kept draws is its ELBO, up to the error of both estimates.
    ratio = fit.draws.log_ratio
    error = ratio.std() / np.sqrt(len(ratio)) + 5.0 / np.sqrt(100)
    assert abs(ratio.mean() - fit.draws.elbo.max()) < 5 * error


@pytest.mark.slow
def test_both_engines_end_alike(pair) -> None:
    """ELBOs of a converged full-rank fit agree to their evaluation error."""
    options = {"guide": "full_rank", "restarts": 1}
    found = [bmtl.fit(MODEL, pair, engine=engine, **options) for engine in ("pyro", "numpyro")]
    ratios = [fit.draws.log_ratio for fit in found]
    error = np.sqrt(sum(ratio.var() / len(ratio) for ratio in ratios))
    # MIN_GAIN times the cells is what an optimiser may leave unearned.
    assert abs(ratios[0].mean() - ratios[1].mean()) < 5 * error + 0.1


def test_map_is_one_draw_and_no_loo(pair) -> None:
    fit = bmtl.fit(MODEL, pair, method="map", restarts=1)
    assert fit.draws.shape == (1, 1) and fit.converged
    with pytest.raises(bmtl.FitError, match="a MAP fit has no posterior draws"):
        fit.elpd()
    assert fit.settings == MAP(restarts=1)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(pair, grouped) -> None:
    for tasks in (pair, grouped("gaussian")):
        there, here = (bmtl.fit(MODEL, tasks, engine="pyro", device=device, restarts=1) for device in ("cuda", "cpu"))
        assert there.device == "cuda" and there.converged and here.converged
        a, b = there.weights(), here.weights()
        np.testing.assert_allclose(a["noise"], b["noise"], rtol=0.1)
        np.testing.assert_allclose(there.draws.log_ratio.mean(), here.draws.log_ratio.mean(), atol=0.5)


@pytest.mark.parametrize(
    "how",
    [
        "method='svi', restarts=1, max_steps=10**8",
        "method='nuts', draws=10**6, warmup=10**6",
        pytest.param("method='svi', restarts=1, max_steps=10**8, engine='pyro'", marks=pytest.mark.slow),
        pytest.param("method='nuts', draws=10**6, engine='pyro'", marks=pytest.mark.slow),
    ],
    ids=["svi numpyro", "nuts numpyro", "svi pyro", "nuts pyro"],
)
def test_ctrl_c(how, tmp_path) -> None:
    """An interrupt in the middle of a long fit ends it at once, as KeyboardInterrupt, and leaves nothing behind."""
    code = f"""
        import numpy as np, bmtl, pyro.infer.mcmc.api as api
        from bmtl.fitting import progress, settling
        from bmtl.models import SharedTrunk
        settling.WINDOW = 10**9
        # Says on standard output when the fit is under way.
        progress.tqdm.update = lambda self, n=1: print("tick", flush=True)
        start = api._UnarySampler.run
        say = lambda: print("tick", "tick", sep=chr(10), flush=True)
        api._UnarySampler.run = lambda *args, **kwargs: say() or start(*args, **kwargs)
        X = np.random.default_rng(0).normal(size=(400, 3))
        Y = X[:, :2] + np.random.default_rng(1).normal(size=(400, 2))
        tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2)
        bmtl.fit(SharedTrunk(bmtl.trunks.Identity()), tasks, {how}).save("fit.nc")
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["tick\n"] * 2
            time.sleep(2.0)
            assert process.poll() is None
            start = time.perf_counter()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert time.perf_counter() - start < 15
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode in (-signal.SIGINT, 130)
    assert list(tmp_path.iterdir()) == []


@unsettled
def test_one_compiled_program_serves_all_data_of_a_shape(pair) -> None:
    """A second fit of other data in other units compiles nothing, and is what it would be on its own."""
    model = SharedTrunk(Linear(2), noise=Known(0.4))
    settings = {"restarts": 1, "max_steps": 500, "trunk": "guide", "draws": 7}
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 1.7])
    rest = bmtl.Tasks.from_arrays(
        np.asarray(pair.X), rng.normal(size=(pair.n_rows, 2)) * scale + 3.0, ["gaussian"] * 2, names=pair.names
    )
    numpyro_svi._COMPILED.clear()
    bmtl.fit(model, pair, **settings)
    (svi,) = numpyro_svi._COMPILED.values()
    sizes = [part._cache_size() for part in (svi.start, svi.begin, svi.chunk, svi.draw)]
    again = bmtl.fit(model, rest, **settings)
    assert list(numpyro_svi._COMPILED.values()) == [svi]
    assert [part._cache_size() for part in (svi.start, svi.begin, svi.chunk, svi.draw)] == sizes == [1] * 4
    # Nor do restarts, folds left out, or another number of steps or draws need programs of their own.
    held, odd = arrays(rest, Design.of(rest)), np.arange(rest.n_rows) % 2 == 1
    masks = {name: own for name, own in held.items() if name.startswith("mask/")}
    folds = [{name: own & part for name, own in masks.items()} for part in (odd, ~odd)]
    other = SVI(trunk="guide", restarts=2, max_steps=250, draws=40)
    numpyro_svi.run(model, Design.of(rest), held, other, 0, folds)
    assert [part._cache_size() for part in (svi.start, svi.begin, svi.chunk, svi.draw)] == sizes
    numpyro_svi._COMPILED.clear()
    alone = bmtl.fit(model, rest, **settings)
    assert same_sites(again, alone)
    bmtl.fit(SharedTrunk(Linear(2), noise=Known(0.5)), rest, **settings)
    assert len(numpyro_svi._COMPILED) == 2


def test_few_compiled_programs_are_kept(pair, monkeypatch) -> None:
    monkeypatch.setattr(numpyro_svi, "KEPT", 2)
    numpyro_svi._COMPILED.clear()
    design = Design.of(pair)
    held = arrays(pair, design)
    one, two, three = (
        numpyro_svi.compiled(SharedTrunk(Linear(2)), design, SVI(batch_size=size), held) for size in (1, 2, 3)
    )
    assert numpyro_svi.compiled(SharedTrunk(Linear(2)), design, SVI(batch_size=2), held) is two
    assert list(numpyro_svi._COMPILED.values()) == [three, two] and one not in numpyro_svi._COMPILED.values()
