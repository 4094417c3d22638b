"""Heads with layers of their own, and tasks that see some of the inputs only."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pyro
import pytest
import torch

import bmtl
from bmtl import replay
from bmtl.arrangement import Arrangement
from bmtl.data import Data, Design, arrays, inputs_only
from bmtl.engine.pyro import PyroEngine
from bmtl.engine.replay import Replay
from bmtl.engine.torch_replay import TorchReplay
from bmtl.fitting import SVI
from bmtl.model import specification
from bmtl.models import Decoupled, SharedTrunk
from bmtl.relations import Exchangeable
from bmtl.storage import restore
from bmtl.tasks import Tasks
from bmtl.trunks import MLP, Fourier, Identity, Linear, Module

NAMES = ("any", "burst", "count", "size", "tail")
MIXED = Arrangement(((("burst", "size"), ("any",)), (("count", "tail"),)), frozenset({"size"}))
SEEN = {"any": ["x2"], "burst": ["x0", "x1"], "count": ["x0", "x1"]}
MODELS = {
    "heads, shared": SharedTrunk(MLP((4,)), head_widths=(3,)),
    "heads, mixed": SharedTrunk(MLP((4,)), arrangement=MIXED, head_widths=(3, 2)),
    "heads, identity": SharedTrunk(Identity(), head_widths=[3]),
    "heads, one": SharedTrunk(Linear(2), arrangement=Arrangement.merged(NAMES), head_widths=(3,)),
    "views, shared": SharedTrunk(MLP((4,)), inputs=SEEN),
    "views, mixed": SharedTrunk(Linear(2), arrangement=MIXED, inputs=SEEN),
    "views, identity": SharedTrunk(Identity(), inputs=SEEN),
    "views, decoupled": Decoupled(Fourier(4), inputs=SEEN),
    "views, one for all": SharedTrunk(MLP((4,)), inputs=dict.fromkeys(NAMES, ("x1",))),
    "both": SharedTrunk(MLP((4,)), arrangement=MIXED, head_widths=(3,), inputs=SEEN),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
QUICK = ("heads, mixed", "views, mixed", "both")
quick_models = pytest.mark.parametrize(
    "model",
    [pytest.param(own, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, own in MODELS.items()],
)
with_views = pytest.mark.parametrize(
    "model",
    [
        pytest.param(own, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, own in MODELS.items() if own.inputs
    ],
)
HEAD = {"any": 0, "burst": 1, "size": 1, "count": 2, "tail": 2}
TRUNK = {"any": 0, "burst": 0, "size": 0, "count": 1, "tail": 1}


def play(model, tasks, *draws):
    """Linear predictor of each task at all rows, ``draws × rows``, replayed on JAX."""
    design = Design.of(tasks)
    engine, data = Replay({n: np.stack([d[n] for d in draws]) for n in draws[0]}), Data(design, arrays(tasks, design))
    model.program(engine, data)
    return {tasks.names[t]: engine.eta[block.name][:, j] for block in data.blocks() for j, t in enumerate(block.tasks)}


@quick_models
def test_both_engines_agree(model, five, programs) -> None:
    sites = programs.draw(model, five, seed=5)
    expected = float(programs.numpyro(model, five, sites))
    np.testing.assert_allclose(float(programs.pyro(model, five, sites)), expected, rtol=1e-4)


@pytest.mark.parametrize("name", [pytest.param("heads, mixed", marks=pytest.mark.slow), "both"])
def test_both_engines_agree_on_groups(name, grouped, programs) -> None:
    """Each row of one task: the same as each task alone at its own rows."""
    tasks = grouped("gaussian")
    seen = {"u": ["a"]} if name == "both" else ()
    model = dataclasses.replace(MODELS[name], arrangement=Arrangement(((("u", "w"),), (("v",),))), inputs=seen)
    sites = programs.draw(model, tasks, seed=5)
    expected = float(programs.numpyro(model, tasks, sites))
    np.testing.assert_allclose(float(programs.pyro(model, tasks, sites)), expected, rtol=1e-4)
    drawn = {n: value[None] for n, value in sites.items()}
    found = replay.linear_predictor(model, tasks, drawn)
    design = Design.of(tasks)
    engine, data = Replay(drawn), Data(design, inputs_only(tasks.Z, design))
    model.program(engine, data)
    for t, rows in enumerate(tasks.rows):
        np.testing.assert_allclose(found[t][0], engine.eta["y_gaussian"][0, t, rows], rtol=1e-4, atol=1e-5)


@quick_models
def test_draws_in_front_equal_draw_by_draw(model, five, programs) -> None:
    draws = [programs.draw(model, five, seed) for seed in (1, 2)]
    together = play(model, five, *draws)
    for s, own in enumerate(draws):
        for name, value in play(model, five, own).items():
            np.testing.assert_allclose(together[name][s], value[0], rtol=1e-4, atol=1e-4)


def test_the_story_of_deep_heads(five, programs) -> None:
    """η = c ± a · ψ_h(x)·w/√m, ψ_h = tanh(tanh(φ W + b) W' + b') of the own head, in plain numpy."""
    model = MODELS["heads, mixed"]
    s = programs.draw(model, five, seed=1)
    assert {n: v.shape for n, v in s.items() if n.startswith("head")} == {
        "head": (3, 2), "head_w0": (3, 4, 3), "head_b0": (3, 1, 3), "head_w1": (3, 3, 2), "head_b1": (3, 1, 2),
    }
    for name, found in play(model, five, s).items():
        t, h, i = five.index(name), HEAD[name], TRUNK[name]
        phi = np.tanh(five.Z @ s["trunk_w0"][i] + s["trunk_b0"][i])
        for layer in (0, 1):
            phi = np.tanh(phi @ s[f"head_w{layer}"][h] + s[f"head_b{layer}"][h])
        sign = -1.0 if name == "size" else 1.0
        eta = s["intercept"][t] + sign * s["amplitude"][t] * phi @ s["head"][h] / np.sqrt(2)
        np.testing.assert_allclose(found[0], eta, rtol=1e-4, atol=1e-5)


def test_deep_heads_have_the_prior_of_a_layer(five, programs) -> None:
    trace = programs.pyro_trace(MODELS["heads, mixed"], five, {})
    for name, fan_in in [("head_w0", 4), ("head_w1", 3), ("head_b0", 1), ("head_b1", 1)]:
        prior = trace.nodes[name]["fn"]
        assert torch.all(prior.mean == 0)
        torch.testing.assert_close(prior.stddev, torch.full_like(prior.stddev, fan_in**-0.5))


def test_the_story_of_views(five, programs) -> None:
    """Inputs that are not seen are at their mean; parameters are those of the shared trunk and head."""
    model = MODELS["both"]
    s = programs.draw(model, five, seed=1)
    for name, found in play(model, five, s).items():
        t, h, i = five.index(name), HEAD[name], TRUNK[name]
        z = five.Z * np.isin(five.inputs, SEEN.get(name, five.inputs))
        phi = np.tanh(z @ s["trunk_w0"][i] + s["trunk_b0"][i])
        phi = np.tanh(phi @ s["head_w0"][h] + s["head_b0"][h])
        sign = -1.0 if name == "size" else 1.0
        eta = s["intercept"][t] + sign * s["amplitude"][t] * phi @ s["head"][h] / np.sqrt(3)
        np.testing.assert_allclose(found[0], eta, rtol=1e-4, atol=1e-5)


def slopes(model, tasks, sites) -> dict[str, np.ndarray]:
    """Largest derivative of each task's linear predictor by each input, over rows: on JAX and on torch."""
    design = Design.of(tasks)
    held = inputs_only(tasks.Z, design)

    def eta(engine, x):
        data = Data(design, {n: engine.xp.asarray(v) for n, v in held.items()} | {"x": x})
        model.program(engine, data)
        blocks = list(data.blocks())
        order = np.argsort(np.concatenate([block.tasks for block in blocks]))
        return engine.xp.concat([engine.eta[block.name][0] for block in blocks], axis=0)[order]

    drawn = {n: value[None] for n, value in sites.items()}
    out = []
    for j in range(len(tasks.inputs)):
        along = np.zeros_like(held["x"])
        along[:, j] = 1.0
        _, on_jax = jax.jvp(lambda x: eta(Replay(drawn), x), (held["x"],), (along,))
        _, on_torch = torch.func.jvp(
            lambda x: eta(TorchReplay(drawn), x), (torch.tensor(held["x"]),), (torch.tensor(along),)
        )
        out.append([np.abs(np.asarray(value)).max(axis=1) for value in (on_jax, on_torch)])
    return {name: np.array(out)[:, :, t] for t, name in enumerate(tasks.names)}


@with_views
def test_functions_do_not_depend_on_what_is_not_seen(model, five, programs) -> None:
    """Derivatives are exactly zero, and those by seen inputs are not."""
    found = slopes(model, five, programs.draw(model, five, seed=4))
    for name, value in found.items():
        seen = np.isin(five.inputs, dict(model.inputs).get(name, five.inputs))
        assert np.all(value[~seen] == 0.0) and np.all(value[seen] > 0.0)


def test_features_are_computed_once_a_view(five, programs) -> None:
    """Five tasks, three distinct sets of inputs: the trunk is applied to three times the rows."""
    rows = []

    @dataclasses.dataclass(frozen=True)
    class Counting(MLP):
        def sample(self, e, x, copies):
            rows.append(len(x))
            return super().sample(e, x, copies)

    for inputs, views in [(SEEN, 3), ({}, 1), ({"any": five.inputs}, 1), (dict.fromkeys(NAMES, ("x0",)), 1)]:
        model = SharedTrunk(Counting((2,)), inputs=inputs)
        programs.draw(model, five)
        assert set(rows) == {views * five.n_rows}
        rows.clear()


def test_all_inputs_are_the_default(five, programs) -> None:
    plain = SharedTrunk(MLP((4,)), arrangement=MIXED)
    sites = programs.draw(plain, five, seed=2)
    same = dataclasses.replace(plain, inputs=dict.fromkeys(("any", "tail"), five.inputs))
    assert float(programs.numpyro(same, five, sites)) == float(programs.numpyro(plain, five, sites))


def test_a_column_of_levels_is_all_its_indicators() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": list("abc") * 8, "kindness": rng.normal(size=24), "y": rng.normal(size=24)})
    tasks = Tasks.from_frame(frame, ["kind", "kindness"], {"y": "gaussian"})
    from bmtl.views import Views

    views = Views.of({"y": ["kind"]}, Design.of(tasks))
    assert tasks.inputs == ("kind[b]", "kind[c]", "kindness") and views.seen.tolist() == [[True, True, False]]
    assert Views.of({"y": ["kind[c]"]}, Design.of(tasks)).seen.tolist() == [[False, True, False]]


@every_model
def test_specification_there_and_back(model) -> None:
    assert restore(json.loads(json.dumps(specification(model)))) == model
    assert hash(model) == hash(dataclasses.replace(model))


@every_model
def test_all_arrays_live_on_the_device(model, five) -> None:
    design = Design.of(five)
    data = Data(design, {name: torch.as_tensor(v).to("meta") for name, v in arrays(five, design).items()})
    with pyro.validation_enabled(False):
        found = pyro.poutine.trace(model.program).get_trace(PyroEngine("meta"), data)
        assert found.log_prob_sum().device.type == "meta"


@pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")
def test_a_module_with_deep_heads_and_views(five, made, tmp_path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh())
    model = SharedTrunk(Module(net), head_widths=(3,), inputs=SEEN)
    fit = bmtl.fit(model, five, trunk="point", max_steps=250, restarts=1, draws=20)
    fit.save(tmp_path / "fit.nc")
    back = bmtl.load(tmp_path / "fit.nc", net=net)
    assert back.model.inputs == model.inputs and repr(back) == repr(fit)
    moved = five.X[:4] + np.array([[0.5, 0.5, 0.0]])
    ours, theirs = (fit.predict(x)["mean"]["any"].values for x in (five.X[:4], moved))
    assert np.array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")
def test_extended_with_deep_heads_and_views(five, made) -> None:
    """New heads have layers of their own and see every input; the old ones stay."""
    fit = made(MODELS["both"], five, SVI(draws=6))
    rng = np.random.default_rng(0)
    new = Tasks.from_arrays(five.X, rng.normal(size=(24, 1)), ["gaussian"], names=["apart"])
    out = fit.extend(new, beside="burst", max_steps=250)
    assert out.draws.sites["head_w0"].shape == (1, 6, 4, 4, 3)
    ours, theirs = (replay.linear_predictor(own.model, own.tasks, own.flat) for own in (fit, out))
    for value, expected in zip(theirs, ours, strict=False):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    sites = {n: value[0, 0] for n, value in out.draws.sites.items()}
    assert np.all(slopes(out.model, out.tasks, sites)["apart"] > 0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SharedTrunk(head_widths=(3, 0)), ValueError, r"SharedTrunk needs head_widths ≥ 1, got \(3, 0\)"),
        (lambda: SharedTrunk(relation=Exchangeable(), head_widths=(3,)), ValueError,
         "heads with layers of their own cannot be tied by Exchangeable"),
        (lambda: SharedTrunk(inputs={"any": []}), bmtl.TaskError, "tasks that see no input: 'any'"),
        (lambda: Decoupled(inputs={"any": "x1"}), bmtl.TaskError,
         "the inputs of task 'any' must be a list of names, got the single string 'x1'"),
    ],
)
def test_refused(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


def test_refused_with_tasks(pair) -> None:
    with pytest.raises(bmtl.TaskError, match="inputs of unknown tasks: 'a'; the tasks are 'u', 'v'"):
        bmtl.fit(SharedTrunk(Identity(), inputs={"a": ["x0"]}), pair)
    with pytest.raises(bmtl.TaskError, match="task 'u': unknown inputs 'x7'; known: 'x0', 'x1'"):
        bmtl.fit(SharedTrunk(Identity(), inputs={"u": ["x0", "x7"]}), pair)
    for options in ({"inputs": {"u": ["x0"]}}, {"head_widths": (2,)}):
        with pytest.raises(ValueError, match=f"marginal=True needs heads on .* without {next(iter(options))}"):
            bmtl.fit(SharedTrunk(Identity(), **options), pair, method="nuts", marginal=True)
