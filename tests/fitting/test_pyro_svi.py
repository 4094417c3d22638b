"""The batched steps of SVI on Pyro: equal to single ones, unbiased, and free of traffic with the host."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch

from bmtl.data import Data, Design, arrays
from bmtl.fitting import MAP, SVI
from bmtl.fitting.adam import Adam
from bmtl.fitting.pyro_latent import Latent
from bmtl.fitting.pyro_svi import PyroSVI, run
from bmtl.fitting.repeated import repeated, traffic
from bmtl.models import SharedTrunk
from bmtl.relations import Clustered, Correlated, Exchangeable, LowRank, Sparse
from bmtl.trunks import MLP, Fourier, Identity, Linear, Module

MODELS = {
    "independent": SharedTrunk(MLP((4, 3))),
    "exchangeable": SharedTrunk(Linear(2), Exchangeable()),
    "correlated": SharedTrunk(Fourier(4), Correlated()),
    "sparse": SharedTrunk(Identity(), Sparse()),
    "low rank": SharedTrunk(MLP((4,), "relu"), LowRank()),
    "clustered": SharedTrunk(Linear(2), Clustered()),
    "clustered, centres": SharedTrunk(Linear(2), Clustered(exact=False)),
    "own layers": SharedTrunk(MLP((3,)), head_widths=(2,)),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


@pytest.fixture(autouse=True)
def as_in_a_fit():
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        yield


def svi_of(model, tasks, settings, **options) -> PyroSVI:
    design = Design.of(tasks)
    return PyroSVI(model, design, settings, arrays(tasks, design), **options)


def folds(tasks, n: int) -> dict[str, np.ndarray]:
    """Training masks that leave out every n-th row."""
    masks = {name: own for name, own in arrays(tasks, Design.of(tasks)).items() if name.startswith("mask/")}
    apart = np.arange(tasks.n_rows) % n
    return {name: np.stack([own & (apart != fold) for fold in range(n)]) for name, own in masks.items()}


@every_model
@pytest.mark.parametrize("layout", ["wide", "wide, all labels", "long"])
def test_batched_log_density_equals_the_loop(model, layout, five, seven, grouped) -> None:
    tasks = {"wide": five, "wide, all labels": seven, "long": grouped("gaussian")}[layout]
    design = Design.of(tasks)
    values = {name: torch.as_tensor(own) for name, own in arrays(tasks, design).items()}
    masks = {name: torch.as_tensor(own) for name, own in folds(tasks, 3).items()}
    latent = Latent(
        lambda engine, held, scale=1.0: model.program(engine, Data(design, held, scale)), "cpu", values,
        lambda name: False,
    )
    z = torch.stack([latent.start() for _ in range(3)])
    together = latent.log_density(z, values | masks, 2.0)
    alone = [latent.log_density(z[r], values | {name: own[r] for name, own in masks.items()}, 2.0) for r in range(3)]
    np.testing.assert_allclose(together, torch.stack(alone), rtol=1e-4)
    assert torch.unique(together).numel() == 3


@pytest.mark.parametrize("guide", ["mean_field", "low_rank", "full_rank", "map"])
@pytest.mark.parametrize("batch", [8, 64])
def test_runs_side_by_side_equal_runs_alone(guide, batch, five) -> None:
    """Folds and restarts with the same seeds take the same steps, to numerical precision."""
    settings = MAP(batch_size=batch) if guide == "map" else SVI(guide=guide, trunk="guide", batch_size=batch)
    own, seeds = folds(five, 4), (3, 1, 4, 1)
    model = SharedTrunk(MLP((3,)))
    together = svi_of(model, five, settings, seeds=seeds, own=own, seed=7)
    alone = [
        svi_of(model, five, settings, seeds=[each], own={name: mask[[r]] for name, mask in own.items()}, seed=7)
        for r, each in enumerate(seeds)
    ]
    start = together.flat.detach().clone()
    for svi in (together, *alone):
        for _ in range(20):
            svi.step()
    np.testing.assert_allclose(
        together.flat.detach(), torch.cat([svi.flat.detach() for svi in alone]), rtol=1e-3, atol=2e-4
    )
    np.testing.assert_allclose(together.losses[:20], torch.cat([svi.losses[:20] for svi in alone], 1), rtol=1e-3)
    assert torch.all((together.flat - start).abs().amax(1) > 0.1)


@pytest.mark.parametrize("guide", ["mean_field", "low_rank", "full_rank"])
@every_model
def test_closed_form_terms_change_the_elbo_in_no_mean(guide, model, five) -> None:
    """The estimate equals that of one draw of log p − log q in expectation, and varies less."""
    svi = svi_of(model, five, SVI(guide=guide, trunk="point"))
    with torch.no_grad():
        # Wider than at the start, so that priors matter.
        svi.flat += 0.3 * torch.randn_like(svi.flat)
        params = svi.guide.named(svi.flat[0])
        noise = torch.randn(4000, svi.guide.n_noise)
        closed = svi.negative_elbo(params, noise, svi.arrays)
        free, log_q = svi.guide.draw(params, noise)
        plain = log_q - svi.latent.log_density(svi._whole(params, free), svi.arrays)
    gap = (closed - plain).double()
    assert torch.isfinite(gap).all() and gap.std() > 0.01
    assert abs(gap.mean()) < 5 * gap.std() / len(gap) ** 0.5 + 1e-5 * closed.abs().mean()


def test_which_priors_are_known(five) -> None:
    known = svi_of(SharedTrunk(Linear(2), Exchangeable()), five, SVI(trunk="guide")).known
    assert known.names == {"trunk_w", "head", "head_mean"}
    other = svi_of(SharedTrunk(Linear(2), LowRank()), five, SVI(trunk="guide")).known
    assert other.names == {"trunk_w", "head_basis", "head_loading", "intercept"}


@every_model
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_step_has_no_traffic_with_the_host(model, layout, pair, grouped) -> None:
    svi = svi_of(model, pair if layout == "wide" else grouped("poisson"), SVI(trunk="point", batch_size=8))
    svi.step()
    assert traffic(svi.step) == set()


def test_traffic_is_seen(five) -> None:
    """A step with it is not captured: torch makes a tensor of a number for every Student-t distribution."""
    assert traffic(lambda: float(torch.ones(1))) == {"_local_scalar_dense"}
    svi = svi_of(SharedTrunk(Linear(2)), five, SVI(trunk="point"))
    svi.step()
    assert traffic(svi.step) == {"lift_fresh"}


def test_a_module_as_trunk(five) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh())
    design = Design.of(five)
    each = [{name: own[fold] for name, own in folds(five, 2).items()} for fold in range(2)]
    settings = SVI(max_steps=250, restarts=2, draws=20)
    found = run(SharedTrunk(Module(net)), design, arrays(five, design), settings, 0, each)
    assert [draws.elbo.shape for draws in found] == [(2,)] * 2 and np.isfinite([draws.elbo for draws in found]).all()


@pytest.mark.parametrize("rate", [0.1, 0.003])
def test_adam_is_that_of_torch(rate, rng) -> None:
    start, gradients = rng.normal(size=(3, 5)), rng.normal(size=(30, 3, 5)) * [1.0, 1e-3, 0.0, 1e3, 1.0]
    ours, theirs = torch.tensor(start), torch.tensor(start, requires_grad=True)
    adam, reference = Adam([ours]), torch.optim.Adam([theirs], lr=rate)
    for own in torch.tensor(gradients):
        adam([own], torch.tensor([rate, 0.0, rate]))
        theirs.grad = own
        reference.step()
    np.testing.assert_allclose(ours[[0, 2]], theirs.detach()[[0, 2]], rtol=1e-6)
    np.testing.assert_array_equal(ours[1], start[1])


def test_on_the_cpu_a_repeated_step_is_the_step() -> None:
    def step() -> None: ...

    assert repeated(step, [], torch.device("cpu")) is step


@pytest.mark.gpu
def test_a_captured_step_equals_the_step(pair) -> None:
    """Steps replayed from a graph are those that follow one another without one, generators included."""
    settings, device = SVI(trunk="guide", batch_size=8), torch.device("cuda")
    one, two = (svi_of(SharedTrunk(MLP((3,))), pair, settings, seeds=(1, 2), device="cuda") for _ in range(2))
    advance = repeated(two.step, two.generators, device)
    for _ in range(20):
        one.step()
        advance()
    torch.testing.assert_close(one.flat, two.flat, rtol=1e-4, atol=1e-5)
    assert int(two.at) == 20
