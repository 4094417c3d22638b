"""Both engines score every model alike, and so does reading it off again at given draws."""

from __future__ import annotations

import numpy as np
import pytest

from bmtl import replay
from bmtl.arrangement import Arrangement
from bmtl.data import Data, Design, arrays
from bmtl.engine.pyro import PyroEngine
from bmtl.engine.replay import Replay
from bmtl.errors import TaskError
from bmtl.families import FAMILIES
from bmtl.model import noise_site
from bmtl.models import Decoupled, Merged, SharedTrunk
from bmtl.noise import Known
from bmtl.relations import Clustered, Correlated, Exchangeable, LowRank, Sparse
from bmtl.trunks import MLP, Fourier, Identity, Linear

TRUNKS = {
    "identity": Identity(),
    "linear": Linear(2),
    "tanh": MLP((4, 3)),
    "relu": MLP((4,), "relu"),
    "fourier": Fourier(6, seed=3),
}
MODELS = {
    "shared": lambda trunk, names: SharedTrunk(trunk),
    "shared, all apart": lambda trunk, names: SharedTrunk(trunk, arrangement=Arrangement.decoupled(names)),
    "shared, all one": lambda trunk, names: SharedTrunk(trunk, arrangement=Arrangement.merged(names, names[-1:])),
    "shared, mixed": lambda trunk, names: SharedTrunk(trunk, arrangement=mixed(names)),
    "exchangeable": lambda trunk, names: SharedTrunk(trunk, Exchangeable(), arrangement=mixed(names)),
    "correlated": lambda trunk, names: SharedTrunk(trunk, Correlated(), arrangement=mixed(names)),
    "sparse": lambda trunk, names: SharedTrunk(trunk, Sparse(), arrangement=mixed(names)),
    "low rank": lambda trunk, names: SharedTrunk(trunk, LowRank(), arrangement=mixed(names)),
    "clustered": lambda trunk, names: SharedTrunk(trunk, Clustered(), arrangement=mixed(names)),
    "clustered, centres": lambda trunk, names: SharedTrunk(trunk, Clustered(exact=False), arrangement=paired(names)),
    "decoupled": lambda trunk, names: Decoupled(trunk),
    "merged": lambda trunk, names: Merged(trunk, flipped=names[1:2]),
}
# A float32 mantissa has 24 bits; sums of some hundred terms keep four digits with room to spare.
RTOL = 1e-4

every_trunk = pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
few_models = pytest.mark.parametrize(
    ("model", "trunk"),
    [(MODELS[name], TRUNKS[trunk]) for name, trunk in [
        ("shared", "linear"), ("shared, mixed", "tanh"), ("decoupled", "identity"), ("merged", "fourier")]],
    ids=["shared-linear", "mixed-tanh", "decoupled-identity", "merged-fourier"],
)
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def mixed(names: tuple[str, ...]) -> Arrangement:
    """Two trunks, the first with two heads, a flipped task in a head, and tasks out of order."""
    if len(names) == 3:
        return Arrangement((((names[2], names[0]),), ((names[1],),)), frozenset({names[2]}))
    a, b, c, d, e = names
    return Arrangement((((e, a), (c,)), ((d, b),)), frozenset({a, d}))


def paired(names: tuple[str, ...]) -> Arrangement:
    """Two trunks, the first with two heads."""
    return Arrangement((tuple((name,) for name in names[:2]), (names[2:],)), frozenset(names[-1:]))


def assert_close(value, expected) -> None:
    np.testing.assert_allclose(float(value), float(expected), rtol=RTOL)


def assert_all_agree(model, tasks, programs) -> None:
    """Log-joint on both engines; log-likelihood on Pyro and by the families in float64, at replayed predictors."""
    sites = programs.draw(model, tasks, seed=5)
    found = programs.pyro_trace(model, tasks, sites)
    assert_close(found.log_prob_sum(), programs.numpyro(model, tasks, sites))

    engine, data = Replay({name: value[None] for name, value in sites.items()}), data_of(tasks)
    model.program(engine, data)
    for block in data.blocks():
        eta, noise = shaped(block, engine.eta[block.name][0], engine.noise[block.name][0])
        exact = block.family.log_prob(block.y, eta.astype(float), noise, block.exposure)
        assert_close(exact[block.mask].sum(), found.nodes[block.name]["log_prob_sum"])


def assert_read_agrees(model, tasks, programs, seed: int = 5) -> None:
    """Cells' log-likelihoods in the user's units equal those of the families in float64, each task at its noise."""
    sites = programs.draw(model, tasks, seed)
    drawn = {name: value[None] for name, value in sites.items()}
    read = replay.log_likelihood(model, tasks, drawn)
    etas = replay.linear_predictor(model, tasks, drawn)
    noises = noise_of_tasks(model, tasks, sites)
    for t, family in enumerate(tasks.families):
        exact = family.log_prob(tasks.y_std(t), etas[t][0].astype(float), noises[t], tasks.exposure[t])
        np.testing.assert_allclose(read[t][0], exact - np.log(tasks.y_scale[t]), rtol=RTOL, atol=RTOL)


def shaped(block, eta, noise) -> tuple[np.ndarray, np.ndarray]:
    """Linear predictors and noise of each cell, with what a family has several of in the last dimension."""
    predictors = (block.family.n_predictors,) if block.family.n_predictors > 1 else ()
    vector = np.shape(noise)[-1:] if block.family.noise_dims else ()
    return np.broadcast_to(eta, (*block.y.shape, *predictors)), np.broadcast_to(noise, (*block.y.shape, *vector))


def data_of(tasks) -> Data:
    design = Design.of(tasks)
    return Data(design, arrays(tasks, design))


def noise_of_tasks(model, tasks, sites) -> list:
    """Noise of each task on the modelled scale, one where its family has none.

    One for categorical tasks too, of which log probabilities are read, in the place of linear predictors.
    """
    noise = [1.0] * tasks.n_tasks
    for block, members in Design.of(tasks).groups.items():
        family = tasks.families[members[0]]
        if family.noise_name is not None and family.n_predictors == 1:
            for j, t in enumerate(members):
                held = sites.get(noise_site(block))
                noise[t] = model.noise.value / tasks.y_scale[t] if held is None else held[j].astype(float)
    return noise


@every_trunk
@every_model
def test_wide(model, trunk, five, programs) -> None:
    assert_all_agree(model(trunk, five.names), five, programs)


@pytest.mark.parametrize(
    "trunk",
    [pytest.param(trunk, id=name, marks=[] if name in ("identity", "tanh") else pytest.mark.slow)
     for name, trunk in TRUNKS.items()],
)
@every_model
def test_long(model, trunk, grouped, programs) -> None:
    tasks = grouped("gaussian")
    assert tasks.layout == "long"
    assert_all_agree(model(trunk, tasks.names), tasks, programs)


def test_five_and_seven_are_all_families(five, seven) -> None:
    """But for Laplace, of the shape of Student-t: `test_long_families` has it."""
    names = [family.name for family in (*five.families, *seven.families)]
    assert sorted([*names, "laplace"]) == sorted(FAMILIES)


SEVEN = Arrangement(
    ((("cost", "income"), ("colour",), ("wins", "share")), (("grade",), ("visits",))), frozenset({"income", "wins"})
)


@pytest.mark.parametrize(("trunk", "arrangement"), [(Linear(2), None), (MLP((4,)), SEVEN)], ids=["shared", "mixed"])
def test_seven(trunk, arrangement, seven, programs) -> None:
    """Families with labels, several linear predictors or a vector of noises beside those without."""
    model = SharedTrunk(trunk, arrangement=arrangement)
    assert_all_agree(model, seven, programs)
    # A draw whose dispersions are not tiny: single precision then loses digits of gamma functions.
    assert_read_agrees(model, seven, programs, seed=9)


def test_categories_without_the_same_number_share_no_head(seven) -> None:
    with pytest.raises(TaskError, match=r"tasks of one head need as many linear predictors each, but have: 'colour' 3"):
        Design.of(seven).plan(Arrangement.merged(seven.names))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["shared", "shared, mixed", "decoupled", "merged"])
def test_long_families(kind, family, grouped, programs) -> None:
    tasks = grouped(family)
    assert_all_agree(MODELS[kind](Identity(), tasks.names), tasks, programs)


@pytest.mark.parametrize("family", ["wide", "gaussian", "poisson", "ordinal", "categorical"])
@few_models
def test_read_cell_by_cell(model, trunk, family, five, grouped, programs) -> None:
    tasks = five if family == "wide" else grouped(family)
    assert_read_agrees(model(trunk, tasks.names), tasks, programs)


@every_model
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_known_scales(model, layout, five, grouped, programs) -> None:
    tasks = five if layout == "wide" else grouped("student_t")
    kind = model(Identity(), tasks.names)
    known = type(kind)(**{**vars(kind), "noise": Known(0.7), "amplitude": Known(1.3)})
    scales = {"amplitude", "head_scale", "noise_gaussian", "noise_student_t"}
    assert not scales & set(programs.draw(known, tasks)) and scales & set(programs.draw(kind, tasks))
    assert_all_agree(known, tasks, programs)
    if kind.arranged(tasks.names) == mixed(tasks.names):
        assert_read_agrees(known, tasks, programs)


@pytest.mark.parametrize("trunk", [Identity(), MLP((4, 3))], ids=["identity", "tanh"])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_shared_trunk_holds_the_extremes(trunk, layout, five, grouped, programs) -> None:
    """With a trunk each it is `Decoupled`, with one head `Merged`: the same sites, the same numbers."""
    tasks = five if layout == "wide" else grouped("poisson")
    names = tasks.names
    for special, arrangement in [
        (Decoupled(trunk), Arrangement.decoupled(names)),
        (Merged(trunk, flipped=names[:1]), Arrangement.merged(names, names[:1])),
    ]:
        sites = programs.draw(special, tasks, seed=2)
        general = SharedTrunk(trunk, arrangement=arrangement)
        for score in (programs.numpyro, programs.pyro):
            assert float(score(general, tasks, sites)) == float(score(special, tasks, sites))


@every_trunk
def test_one_task_alone(trunk, five, programs) -> None:
    """Of one task there is one model, whatever it is called."""
    for name in five.names:
        alone = five.select([name])
        sites = programs.draw(Decoupled(trunk), alone, seed=3)
        for score in (programs.numpyro, programs.pyro):
            values = [float(score(kind(trunk), alone, sites)) for kind in (SharedTrunk, Decoupled, Merged)]
            assert values[0] == values[1] == values[2]


@every_trunk
def test_decoupled_is_the_product_of_single_tasks(trunk, five, programs) -> None:
    """The joint log-density is the sum of those of each task alone, at its part of the sites."""
    model = Decoupled(trunk)
    sites = programs.draw(model, five, seed=4)
    place = model.arranged(five.names).plan(five.names).head_of
    total = 0.0
    for t, name in enumerate(five.names):
        own = {site: sites[site][t : t + 1] for site in ("amplitude", "intercept")}
        own |= {site: value[place[t]][None] for site, value in sites.items() if site.startswith(("trunk_", "head"))}
        own |= {site: value for site, value in sites.items() if site == noise_site(five.families[t].name)}
        total += float(programs.numpyro(model, five.select([name]), own))
    assert_close(total, programs.numpyro(model, five, sites))


@few_models
@pytest.mark.parametrize("layout", ["wide", "negative_binomial", "ordinal", "categorical"])
def test_draws_in_front_equal_draw_by_draw(model, trunk, layout, five, grouped, programs) -> None:
    """Replay broadcasts over draws; one at a time must give the same."""
    tasks = five if layout == "wide" else grouped(layout)
    assert_draws_broadcast(model(trunk, tasks.names), tasks, programs)


def test_draws_in_front_of_seven(seven, programs) -> None:
    assert_draws_broadcast(SharedTrunk(MLP((4, 3)), arrangement=SEVEN), seven, programs)


def assert_draws_broadcast(kind, tasks, programs) -> None:
    draws = [programs.draw(kind, tasks, seed) for seed in (1, 2)]
    data = data_of(tasks)

    def play(*some):
        engine = Replay({name: np.stack([own[name] for own in some]) for name in some[0]})
        kind.program(engine, data)
        return engine

    together = play(*draws)
    for s, own in enumerate(draws):
        alone = play(own)
        for block in data.blocks():
            for value, expected in [(together.eta, alone.eta), (together.noise, alone.noise)]:
                many, one = (np.asarray(read[block.name]) for read in (value, expected))
                # A noise that no family has is one array of ones for all draws.
                many = np.broadcast_to(many, (2, *one.shape[1:]) if many.ndim == one.ndim else one.shape)
                np.testing.assert_allclose(many[s], one[0], rtol=RTOL, atol=RTOL)
        assert not np.allclose(together.eta[block.name][0], together.eta[block.name][1])


def test_replay_in_slices_equals_at_once(five, programs, monkeypatch) -> None:
    model = SharedTrunk(MLP((3,)))
    draws = [programs.draw(model, five, seed) for seed in range(7)]
    sites = {name: np.stack([own[name] for own in draws]) for name in draws[0]}
    whole = replay.log_likelihood(model, five, sites)
    monkeypatch.setattr(replay, "CELLS_AT_ONCE", 2 * five.n_rows * five.n_tasks)
    for value, expected in zip(replay.log_likelihood(model, five, sites), whole, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def with_other_fillers(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays with other valid outcomes and exposures where nothing was observed."""
    out = dict(values)
    for name in values:
        kind, _, block = name.partition("/")
        if kind in ("y", "exposure"):
            other = np.float32(0.0 if kind == "y" and "bernoulli" in block else 6.0)
            out[name] = np.where(values[f"mask/{block}"], values[name], other)
    return out


@few_models
def test_unobserved_cells_change_nothing(model, trunk, five, programs) -> None:
    """Log-joint and gradient are the same to the last bit, whatever stands where nothing was observed."""
    import jax
    import torch

    kind = model(trunk, five.names)
    values = arrays(five, Design.of(five))
    others = with_other_fillers(values)
    changed = [name for name in values if not np.array_equal(values[name], others[name])]
    assert {"y/gaussian", "y/bernoulli", "y/poisson", "exposure/poisson"} <= set(changed)
    sites = programs.draw(kind, five, seed=6)

    score = jax.jit(jax.value_and_grad(lambda s, v: programs.numpyro(kind, five, s, v)))
    (ours, slope), (theirs, other) = score(sites, values), score(sites, others)
    assert float(ours) == float(theirs)
    assert all(np.array_equal(slope[name], other[name]) and np.any(slope[name]) for name in sites)

    found = []
    for v in (values, others):
        held = {name: torch.tensor(value, requires_grad=True) for name, value in sites.items()}
        value = programs.pyro(kind, five, held, v)
        found.append((value.detach(), *torch.autograd.grad(value, list(held.values()))))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_filler_lies_in_every_support() -> None:
    assert all(kind().valid(np.array([kind.filler])).all() for kind in FAMILIES.values())


@every_model
def test_scale_multiplies_the_likelihood_only(model, five, programs) -> None:
    kind = model(Linear(2), five.names)
    sites = programs.draw(kind, five, seed=1)
    for score in (programs.numpyro, programs.pyro):
        one, two, four = (float(score(kind, five, sites, scale=scale)) for scale in (1.0, 2.0, 4.0))
        np.testing.assert_allclose(four - two, 2 * (two - one), rtol=1e-3)
        assert two != one


@every_model
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_all_arrays_live_on_the_device(model, layout, five, grouped, programs) -> None:
    """On torch's shapes-only device a tensor left behind on the CPU is an error, as it would be on CUDA."""
    import pyro
    import torch

    tasks = five if layout == "wide" else grouped("gaussian")
    engine = PyroEngine("meta")
    design = Design.of(tasks)
    data = Data(design, {name: torch.as_tensor(v).to("meta") for name, v in arrays(tasks, design).items()})
    for trunk in TRUNKS.values():
        kind = model(trunk, tasks.names)
        # Drawing is not defined on that device for every distribution; scoring is.
        sites = {name: torch.as_tensor(v).to("meta") for name, v in programs.draw(kind, tasks).items()}
        with pyro.validation_enabled(False):
            found = pyro.poutine.trace(pyro.poutine.condition(kind.program, data=sites)).get_trace(engine, data)
            assert found.log_prob_sum().device.type == "meta"
