"""Torch modules as trunks: what is trained and what is not, readers on torch, and saved fits."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pyro
import pytest
import torch

import bmtl
from bmtl import replay
from bmtl.arrangement import Arrangement
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.engine.pyro import PyroEngine
from bmtl.fitting import SVI
from bmtl.models import Decoupled, SharedTrunk
from bmtl.trunks import MLP, Identity, Module

SHORT = {"max_steps": 250, "restarts": 1, "draws": 30}
# Short fits are not meant to have settled.
unsettled = pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")


def net_of(*widths: int, seed: int = 0) -> torch.nn.Sequential:
    """A tanh network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = (part for d, k in pairwise(widths) for part in (torch.nn.Linear(d, k), torch.nn.Tanh()))
        return torch.nn.Sequential(*parts)


class Blend(torch.nn.Module):
    """A frozen core with a trainable branch beside it, mixed feature by feature in a learned proportion."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.side = net_of(3, 6, 4), net_of(3, 2, 4, seed=1)
        self.alpha = torch.nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.sigmoid(self.alpha)
        return a * self.core(x) + (1 - a) * self.side(x)


class Switches(torch.nn.Module):
    """What behaves differently in training: dropout, and batch normalisation with statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.normal = torch.nn.BatchNorm1d(3)
        self.normal.running_mean = torch.tensor([1.0, -1.0, 0.5])
        self.normal.running_var = torch.tensor([4.0, 0.25, 1.0])
        self.body = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 4), torch.nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.normal(x))


MODULES = {
    "frozen": lambda: Module(net_of(3, 6, 4), trainable=False),
    "partly": lambda: Module(net_of(3, 6, 4), trainable=["2.*"]),
    "fine-tuned": lambda: Module(net_of(3, 6, 4)),
    "bayes": lambda: Module(net_of(3, 6, 4), pretrained=False),
    "blend": lambda: Module(Blend(), trainable=["side.*", "alpha"]),
    "switches": lambda: Module(Switches()),
}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
X = torch.as_tensor(np.random.default_rng(0).normal(size=(20, 3)), dtype=torch.float32)


def sample(trunk: Module, copies: int, seed: int = 0):
    """Features and sites of one draw."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = pyro.poutine.trace(trunk.sample).get_trace(PyroEngine(), X, copies)
    sites = {name: node["value"] for name, node in found.nodes.items() if node["type"] == "sample"}
    return found.nodes["_RETURN"]["value"], sites


def values_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def assert_same_values(net: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    now = net.state_dict()
    assert set(now) == set(values) and all(torch.equal(now[name], values[name]) for name in values)


@every_module
@pytest.mark.parametrize("copies", [1, 3])
def test_shapes_and_names(make, copies) -> None:
    trunk = make()
    features, sites = sample(trunk, copies)
    known = dict(trunk.net.named_parameters())
    assert {name: value.shape for name, value in sites.items()} == {
        f"trunk_{name}": (copies, *known[name].shape) for name in trunk.trained
    }
    assert features.shape == (copies if trunk.learned else 1, 20, 4)
    assert trunk.learned == bool(sites)


def test_what_is_trained() -> None:
    assert MODULES["frozen"]().trained == ()
    assert MODULES["partly"]().trained == ("2.weight", "2.bias")
    assert MODULES["bayes"]().trained == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert set(MODULES["blend"]().trained) == {"alpha", *(f"side.{i}.{p}" for i in (0, 2) for p in ("weight", "bias"))}
    assert Module(net_of(3, 4), trainable="*.bias").trained == ("0.bias",)


@every_module
def test_features_are_those_of_the_net_with_these_parameters(make) -> None:
    """Each copy's, in evaluation mode, frozen parts as they were."""
    trunk = make()
    features, sites = sample(trunk, 3)
    for copied in range(len(features)):
        alone = copy.deepcopy(trunk.net)
        own = {name.removeprefix("trunk_"): value[copied] for name, value in sites.items()}
        alone.load_state_dict(values_of(alone) | own)
        torch.testing.assert_close(features[copied], alone.eval()(X), rtol=1e-5, atol=1e-6)
    if trunk.learned:
        assert not torch.allclose(features[0], features[1])


def test_evaluation_mode() -> None:
    net = Switches().train()
    (features,), _ = sample(Module(net, trainable=False), 1)
    normal = (X - net.normal.running_mean) / torch.sqrt(net.normal.running_var + net.normal.eps)
    torch.testing.assert_close(features, torch.tanh(net.body[1](normal)).detach(), rtol=1e-5, atol=1e-6)
    assert net.training


@pytest.mark.parametrize(("pretrained", "given", "scale"), [(True, None, 0.1), (False, None, 1.0), (True, 0.7, 0.7)])
def test_prior(pretrained, given, scale) -> None:
    net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 3)), torch.nn.Conv1d(1, 2, 2), torch.nn.Flatten())
    trunk = Module(net, pretrained=pretrained, scale=given)
    found = pyro.poutine.trace(trunk.sample).get_trace(PyroEngine(), X, 2)
    for name, fan_in in [("1.weight", 2), ("1.bias", 1)]:
        prior = found.nodes[f"trunk_{name}"]["fn"]
        value = net.get_parameter(name).detach()
        torch.testing.assert_close(prior.mean, (value if pretrained else 0 * value).expand(2, *value.shape))
        torch.testing.assert_close(prior.stddev, torch.full_like(prior.stddev, scale * fan_in**-0.5))
        assert prior.event_shape == (2, *value.shape)


def test_a_bayesian_tanh_network_is_the_mlp(five, programs) -> None:
    """Log-joint on torch, and every reader on torch, against `MLP` on JAX at the same draws."""
    arrangement = Arrangement(((("any", "size"), ("burst",)), (("count", "tail"),)), frozenset({"size"}))
    theirs = SharedTrunk(MLP((6, 4)), arrangement=arrangement)
    ours = SharedTrunk(MODULES["bayes"](), arrangement=arrangement)
    draws = [programs.draw(theirs, five, seed) for seed in range(3)]
    moved = [as_module(own) for own in draws]
    expected = float(programs.numpyro(theirs, five, draws[0]))
    np.testing.assert_allclose(float(programs.pyro(ours, five, moved[0])), expected, rtol=1e-5)

    jax, on_torch = ({name: np.stack([own[name] for own in some]) for name in some[0]} for some in (draws, moved))
    for read in (replay.log_likelihood, replay.fisher_information):
        for value, expected in zip(read(ours, five, on_torch), read(theirs, five, jax), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
    x = five.Z[:5]
    (mean, _), (expected, _) = (replay.predict(m, five, s, x, 2.0, 0) for m, s in [(ours, on_torch), (theirs, jax)])
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-4)


def as_module(sites: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sites of a two-layer `MLP` as those of a torch network: transposed weights, biases without a row."""
    out = {name: value for name, value in sites.items() if not name.startswith("trunk_")}
    for layer in (0, 1):
        out[f"trunk_{2 * layer}.weight"] = np.swapaxes(sites[f"trunk_w{layer}"], -1, -2)
        out[f"trunk_{2 * layer}.bias"] = sites[f"trunk_b{layer}"][..., 0, :]
    return out


def test_replay_in_slices_equals_at_once(five, programs, monkeypatch) -> None:
    ours = SharedTrunk(MODULES["bayes"]())
    draws = [as_module(programs.draw(SharedTrunk(MLP((6, 4))), five, seed)) for seed in range(5)]
    sites = {name: np.stack([own[name] for own in draws]) for name in draws[0]}
    whole = replay.log_likelihood(ours, five, sites)
    monkeypatch.setattr(replay, "CELLS_AT_ONCE", 2 * five.n_rows * five.n_tasks)
    for value, expected in zip(replay.log_likelihood(ours, five, sites), whole, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_new_outcomes_follow_their_mean_and_noise(pair, programs) -> None:
    """At one draw many times over: mean and spread of the replicated outcomes; the same seed, the same outcomes."""
    model = SharedTrunk(Module(torch.nn.Identity()))
    drawn = programs.draw(SharedTrunk(Identity()), pair)
    sites = {name: np.repeat(own[None], 4000, axis=0) for name, own in drawn.items()}
    state = torch.random.get_rng_state()
    new = replay.replicate(model, pair, sites, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    eta = replay.linear_predictor(model, pair, {name: own[:1] for name, own in sites.items()})
    for t in range(2):
        sd = sites["noise_gaussian"][0, t] * pair.y_scale[t]
        centre = eta[t][0] * pair.y_scale[t] + pair.y_centre[t]
        assert np.max(np.abs(new[t].mean(axis=0) - centre)) < 5 * sd / np.sqrt(4000)
        assert abs((new[t] - centre).std() / sd - 1) < 5 / np.sqrt(2 * new[t].size)
        assert np.array_equal(new[t], replay.replicate(model, pair, sites, seed=3)[t])
        assert not np.array_equal(new[t], replay.replicate(model, pair, sites, seed=4)[t])


@pytest.mark.parametrize("make", [MODULES[name] for name in ("partly", "fine-tuned", "blend", "switches")])
def test_gradients_reach_what_is_trained(make, five, programs) -> None:
    """And nothing else: what is frozen asks for no gradient, nor gets one."""
    trunk = make()
    values = values_of(trunk.net)
    drawn = programs.draw(SharedTrunk(MLP((4,))), five)
    held = {name: torch.tensor(v) for name, v in drawn.items() if not name.startswith("trunk_")}
    held |= {name: value.requires_grad_() for name, value in sample(trunk, 1)[1].items()}
    slopes = torch.autograd.grad(
        programs.pyro(SharedTrunk(trunk), five, held, scale=2.0) - programs.pyro(SharedTrunk(trunk), five, held),
        [held[f"trunk_{name}"] for name in trunk.trained],
    )
    assert all((slope != 0).any() and torch.isfinite(slope).all() for slope in slopes)
    assert not any(p.requires_grad or p.grad is not None for p in trunk.net.parameters())
    assert_same_values(trunk.net, values)


@unsettled
@pytest.mark.parametrize(
    ("name", "trunk"),
    [("frozen", "point"), ("partly", "point"), ("fine-tuned", "guide"), ("blend", "point"), ("blend", "guide"),
     ("switches", "point")],
)
def test_a_fit_moves_what_is_trained(name, trunk, five) -> None:
    given = {"blend": Blend, "switches": Switches}.get(name, lambda: net_of(3, 6, 4))().train()
    before, ours, tasks = values_of(given), MODULES[name](), five.select(["size", "any"])
    module = Module(given, trainable=ours.trainable, pretrained=ours.pretrained)
    fit = bmtl.fit(SharedTrunk(module), tasks, trunk=trunk, seed=1, **SHORT)
    assert fit.engine == "pyro"
    known = dict(given.named_parameters())
    assert {site for site in fit.draws.sites if site.startswith("trunk_")} == {f"trunk_{n}" for n in module.trained}
    for own in module.trained:
        value = fit.draws.sites[f"trunk_{own}"]
        assert value.shape == (1, 30, 1, *known[own].shape)
        assert np.all(value[:, :, 0] != known[own].detach().numpy()).item()
        assert np.all(np.ptp(value, axis=1) == 0) if trunk == "point" else np.all(np.ptp(value, axis=1) > 0)
    for net in (given, module.net):
        assert_same_values(net, before)
    assert given.training and all(p.requires_grad and p.grad is None for p in given.parameters())


@pytest.mark.slow
@unsettled
def test_map_nuts_and_auto(pair) -> None:
    """Every method takes a module, and every table of the fit can be made."""
    model = SharedTrunk(Module(net_of(2, 2)))
    for options in [{"method": "map", "max_steps": 250, "restarts": 1}, {"trunk": "auto", **SHORT},
                    {"method": "nuts", "chains": 2, "warmup": 10, "draws": 10, "max_tree_depth": 3}]:
        fit = bmtl.fit(model, pair, seed=0, **options)
        assert fit.engine == "pyro"
        assert len(fit.checks) and np.isfinite(fit.weights()["weight"]).all()
        assert fit.predict(pair.X[:3])["mean"]["u"].shape[-1] == 3
        assert fit.data["posterior_predictive"]["v"].shape[-1] == 40
        if fit.method == "svi":
            assert np.isfinite(fit.elpd()["elpd"]).all()
    again = bmtl.fit(model, pair, trunk="point", seed=0, **SHORT)
    other = bmtl.fit(model, pair, trunk="point", seed=0, **SHORT)
    assert all(np.array_equal(value, other.draws.sites[name]) for name, value in again.draws.sites.items())


@pytest.mark.slow
@unsettled
def test_a_frozen_core_with_a_branch_learns_what_the_core_lacks() -> None:
    """y = a feature of the core + a function of an input that the core does not see: core and branch each explain
    one, the blend both."""
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(200, 3))
    Z = torch.as_tensor((inputs - inputs.mean(0)) / inputs.std(0), dtype=torch.float32)
    blend = Blend()
    with torch.no_grad():
        blend.core[0].weight[:, 1] = 0.0
        blend.core[0].weight *= 3.0
        feature = blend.core(Z)[:, 0].numpy()
    y = 2.0 * feature / feature.std() + np.tanh(1.5 * inputs[:, 1]) + 0.2 * rng.normal(size=200)
    tasks = bmtl.Tasks.from_arrays(inputs, y[:, None], ["gaussian"], names=["y"])
    noise = {}
    for name, net in [("core", blend.core), ("blend", blend)]:
        trunk = Module(net, trainable=False if name == "core" else ["side.*", "alpha"], scale=0.3)
        fit = bmtl.fit(SharedTrunk(trunk), tasks, method="map", seed=1, restarts=1, max_steps=1500)
        noise[name] = float(fit.noise["y"][0, 0])
    alpha = fit.draws.sites["trunk_alpha"]
    assert noise["blend"] < 0.25 < 0.7 < noise["core"]
    assert alpha.shape == (1, 1, 1, 4) and np.all(np.abs(alpha) > 1e-3)


def test_a_module_needs_pyro(pair) -> None:
    model = SharedTrunk(Module(net_of(2, 2)))
    with pytest.raises(ValueError, match="the model runs on the engine pyro only, not on 'numpyro'"):
        bmtl.fit(model, pair, engine="numpyro")
    with pytest.raises(ValueError, match="runs on the engine pyro, not on numpyro"):
        model.trunk.sample(NumPyroEngine(), X[:, :2].numpy(), 1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Module(torch.nn.Linear), TypeError, "Module needs a torch.nn.Module, got <class"),
        (lambda: Module(net_of(3, 4), ["0.*", "head.*", "x"]), ValueError,
         r"no parameter is called 'head\.\*', 'x'; the net has 0\.weight, 0\.bias"),
        (lambda: Module(net_of(3, 4), scale=0.0), ValueError, "Module needs a scale > 0, got 0.0"),
        (lambda: sample(Module(torch.nn.Unflatten(1, (1, 3))), 1), ValueError,
         r"rows × features for 20 rows, got shape \(20, 1, 3\)"),
    ],
)
def test_refused(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.fixture(scope="module")
def saved(five, tmp_path_factory):
    """A short fit of a partly frozen module on two trunks, and its file."""
    arrangement = Arrangement(((("any", "size"), ("burst",)), (("count", "tail"),)))
    model = SharedTrunk(Module(Blend(), trainable=["side.*", "alpha"]), arrangement=arrangement)
    with pytest.warns(bmtl.ConvergenceWarning):
        fit = bmtl.fit(model, five, trunk="point", seed=0, **SHORT)
    path = tmp_path_factory.mktemp("fits") / "fit.nc"
    fit.save(path)
    return fit, path


def test_there_and_back_with_the_net(saved, five) -> None:
    fit, path = saved
    back = bmtl.load(path, net=Blend())
    assert back.model.trunk.trained == fit.model.trunk.trained and back.settings == fit.settings
    for name, value in fit.draws.sites.items():
        assert np.array_equal(value, back.draws.sites[name])
    for ours, theirs in zip(fit.log_likelihood, back.log_likelihood, strict=True):
        assert np.array_equal(ours, theirs)
    new = fit.predict(five.X[:4])
    assert all(np.array_equal(new["mean"][name], back.predict(five.X[:4])["mean"][name]) for name in new["mean"])
    assert repr(back) == repr(fit)


def other(change) -> Blend:
    net = Blend()
    change(net)
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: None, r"the trunk of the saved fit is a torch module: give it, bmtl\.load\(path, net=\.\.\.\)"),
        (lambda: net_of(3, 4), "no parameter is called 'side.*', 'alpha'"),
        (lambda: other(lambda net: delattr(net, "core")), "of the saved fit: it lacks core.0.bias, core.0.weight"),
        (lambda: other(lambda net: net.register_buffer("more", torch.zeros(1))), "it has besides more"),
        (lambda: other(lambda net: setattr(net, "side", net_of(3, 5, 4))), r"side.0.weight has shape \[5, 3\], not"),
        (lambda: other(lambda net: net.core[0].bias.data.add_(1e-6)), "core.0.bias is frozen, and has other values"),
    ],
)
def test_another_net_is_refused(net, message, saved) -> None:
    with pytest.raises(ValueError, match=message):
        bmtl.load(saved[1], net=net())


def test_the_trained_part_may_have_other_values(saved, five) -> None:
    fit, path = saved
    back = bmtl.load(path, net=other(lambda net: net.side[0].bias.data.add_(1.0)))
    for ours, theirs in zip(fit.log_likelihood, back.log_likelihood, strict=True):
        assert np.array_equal(ours, theirs)


def test_all_tensors_live_on_the_device(five) -> None:
    """On torch's shapes-only device a tensor left behind on the CPU is an error, as it would be on CUDA."""
    from bmtl.data import Data, Design, arrays

    design = Design.of(five)
    data = Data(design, {name: torch.as_tensor(v).to("meta") for name, v in arrays(five, design).items()})
    for make in MODULES.values():
        with pyro.validation_enabled(False):
            found = pyro.poutine.trace(Decoupled(make()).program).get_trace(PyroEngine("meta"), data)
            assert found.log_prob_sum().device.type == "meta"


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(pair) -> None:
    fits = [
        bmtl.fit(SharedTrunk(Module(net_of(2, 4))), pair, trunk="point", seed=0, device=device, restarts=1)
        for device in ("cpu", "cuda")
    ]
    ours, theirs = (fit.predict(pair.X, seed=0)["mean"]["u"].values.mean(axis=(0, 1)) for fit in fits)
    assert np.max(np.abs(ours - theirs)) < 0.2 * pair.y[0].std()


def test_settings_are_those_of_any_trunk() -> None:
    from bmtl.fitting.settings import is_point, learns_trunk, point_trunk

    point = SVI(trunk="point")
    assert is_point(point, "trunk_0.weight") and learns_trunk(SharedTrunk(MODULES["partly"]()))
    assert point_trunk(SharedTrunk(MODULES["partly"]()), point)
    assert not point_trunk(SharedTrunk(MODULES["frozen"]()), point)
