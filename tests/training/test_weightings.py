"""One step of each weighting against its paper's formula in double precision, and what it does not depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import bmtl
from bmtl.training import GradNorm, PCGrad, Static, Step, TorchJD, Unitary
from bmtl.training.weightings.pcgrad import shares

RUNS, TASKS, SIZE = 2, 3, 5


@pytest.fixture
def tasks() -> bmtl.Tasks:
    rng = np.random.default_rng(0)
    return bmtl.Tasks.from_arrays(rng.normal(size=(10, 1)), rng.normal(size=(10, TASKS)), ["gaussian"] * TASKS)


def step(seed: int = 0, active: list[bool] | None = None) -> Step:
    rng = np.random.default_rng(seed)
    on = torch.tensor([active or [True] * TASKS] * RUNS)
    losses, excess = (torch.tensor(rng.uniform(0.5, 3.0, (RUNS, TASKS))) * on for _ in range(2))
    pulls = torch.tensor(rng.normal(size=(RUNS, TASKS, SIZE))) * on[..., None]
    return Step(losses, on, excess, pulls)


def start(weighting, tasks, seeds=(0, 1)):
    return weighting.start(tasks, list(seeds), torch.zeros(len(seeds), TASKS, dtype=torch.float64))


def reordered(own: Step, order: list[int]) -> Step:
    return Step(*(value[:, order] for value in own))


def scaled(own: Step, factor: torch.Tensor) -> Step:
    """Every task's loss multiplied by its factor."""
    return Step(own.losses * factor, own.active, own.excess * factor, own.pulls * factor[:, None])


def test_unitary_and_static(tasks) -> None:
    assert Unitary().update(start(Unitary(), tasks), step())[0].weights.tolist() == [[1.0] * TASKS] * RUNS
    own = Static({"y2": 3.0, "y0": 0.5})
    assert own.update(start(own, tasks), step())[0].weights.tolist() == [[0.5, 1.0, 3.0]] * RUNS
    rng = np.random.default_rng(0)
    important = bmtl.Tasks.from_arrays(
        rng.normal(size=(10, 1)), rng.normal(size=(10, TASKS)), ["gaussian"] * TASKS, importance=[1.0, 2.0, 4.0]
    )
    assert start(Static(), important).tolist() == [[1.0, 2.0, 4.0]] * RUNS


def test_static_refuses_unknown_tasks_and_weights_of_zero(tasks) -> None:
    with pytest.raises(bmtl.TaskError, match="unknown tasks: 'z'"):
        start(Static({"z": 1.0}), tasks)
    with pytest.raises(bmtl.TaskError, match="finite and > 0, got 0"):
        start(Static({"y0": 0.0}), tasks)


def gradnorm_by_autograd(weights, pulls, losses, first, alpha, rate) -> np.ndarray:
    """Algorithm 1 of Chen et al. for one run, with the derivative of |G − target| left to autograd."""
    w = torch.tensor(weights, requires_grad=True)
    G = torch.stack([torch.sqrt(((w[i] * pulls[i]) ** 2).sum()) for i in range(len(weights))])
    ratio = losses / first
    target = G.mean() * (ratio / ratio.mean()) ** alpha
    torch.abs(G - target.detach()).sum().backward()
    new = w.detach() - rate * w.grad
    return (new * len(weights) / new.sum()).numpy()


def test_gradnorm_over_two_steps(tasks) -> None:
    own = GradNorm(alpha=0.7, learning_rate=0.03)
    first, second = step(0), step(1)
    update, state = own.update(start(own, tasks), first)
    assert update.weights.tolist() == [[1.0] * TASKS] * RUNS
    after, state = own.update(state, second)
    last, _ = own.update(state, step(2))
    for run in range(RUNS):
        ones = np.ones(TASKS)
        expected = gradnorm_by_autograd(ones, first.pulls[run], first.excess[run], first.excess[run], 0.7, 0.03)
        np.testing.assert_allclose(after.weights[run], expected, rtol=1e-12)
        expected = gradnorm_by_autograd(expected, second.pulls[run], second.excess[run], first.excess[run], 0.7, 0.03)
        np.testing.assert_allclose(last.weights[run], expected, rtol=1e-12)
    np.testing.assert_allclose(last.weights.sum(dim=1), TASKS, rtol=1e-12)


def test_gradnorm_leaves_stopped_tasks_out(tasks) -> None:
    own = GradNorm(alpha=0.7, learning_rate=0.03)
    state = start(own, tasks)._replace(first=torch.ones(RUNS, TASKS, dtype=torch.float64))
    off = step(3, [True, False, True])
    _, state = own.update(state, off)
    for run in range(RUNS):
        two = [0, 2]
        expected = gradnorm_by_autograd(np.ones(2), off.pulls[run, two], off.excess[run, two], torch.ones(2), 0.7, 0.03)
        np.testing.assert_allclose(state.weights[run, two], expected, rtol=1e-12)
        assert state.weights[run, 1] == 1.0


@pytest.mark.parametrize("options", [{"alpha": -0.1}, {"learning_rate": 0.0}])
def test_gradnorm_refuses(options) -> None:
    with pytest.raises(ValueError, match=f"GradNorm needs .*{next(iter(options))}"):
        GradNorm(**options)


def pcgrad_by_hand(pulls: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Yu et al."""
    total = np.zeros(pulls.shape[1])
    for i, others in enumerate(order):
        g = pulls[i].copy()
        for j in others:
            if j != i and g @ pulls[j] < 0:
                g -= (g @ pulls[j]) / (pulls[j] @ pulls[j]) * pulls[j]
        total += g
    return total


def test_pcgrad_by_hand() -> None:
    rng = np.random.default_rng(5)
    pulls = rng.normal(size=(4, 6, 7)) + rng.normal(size=(4, 1, 7))
    order = np.stack([[rng.permutation(6) for _ in range(6)] for _ in range(4)])
    share = shares(torch.tensor(pulls @ pulls.swapaxes(1, 2)), torch.tensor(order))
    found = np.einsum("rt,rtd->rd", share, pulls)
    expected = [pcgrad_by_hand(*own) for own in zip(pulls, order, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert np.abs(found - pulls.sum(axis=1)).max() > 0.1


def test_pcgrad_of_two_tasks_by_formula(tasks) -> None:
    g = np.array([[1.0, 0.0], [-1.0, 1.0]])
    found = shares(torch.tensor(g @ g.T)[None], torch.tensor([[[0, 1], [1, 0]]])) @ torch.tensor(g)
    # (1, 0) loses half of (−1, 1) against it and becomes (½, ½); (−1, 1) becomes (0, 1).
    np.testing.assert_allclose(found[0], [0.5, 1.5])


def test_pcgrad_takes_orders_from_the_seed_of_the_run(tasks) -> None:
    own, both = PCGrad(), step(7)
    update, _ = own.update(start(own, tasks), both)
    again, _ = own.update(start(own, tasks), both)
    torch.testing.assert_close(update.trunk, again.trunk, rtol=0, atol=0)
    alone = Step(*(value[1:] for value in both))
    torch.testing.assert_close(own.update(start(own, tasks, [1]), alone)[0].trunk, update.trunk[1:])
    assert update.weights.eq(1.0).all()


def test_pcgrad_of_a_stopped_task(tasks) -> None:
    own = step(7, [True, False, True])
    update, _ = PCGrad().update(start(PCGrad(), tasks), own)
    for run in range(RUNS):
        expected = pcgrad_by_hand(own.pulls[run, [0, 2]].numpy(), np.array([[0, 1], [0, 1]]))
        np.testing.assert_allclose(update.trunk[run], expected, rtol=1e-12)


def test_torchjd_is_the_aggregator(tasks) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    own = TorchJD(aggregation.IMTLG())
    update, _ = own.update(start(own, tasks), step(8))
    for run in range(RUNS):
        torch.testing.assert_close(update.trunk[run], aggregation.IMTLG()(step(8).pulls[run]))
    assert update.weights.eq(1.0).all()
    torch.testing.assert_close(
        TorchJD(aggregation.Sum()).update(start(TorchJD(aggregation.Sum()), tasks), step(8))[0].trunk,
        step(8).pulls.sum(dim=1),
    )


def test_pcgrad_is_torchjds(tasks) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    # Of two tasks the order means nothing.
    two = Step(*(value[:, :2] for value in step(9)))
    theirs = TorchJD(aggregation.PCGrad())
    found = [own.update(start(own, tasks), two)[0].trunk for own in (theirs, PCGrad())]
    torch.testing.assert_close(*found)


def test_torchjd_needs_the_package_and_an_aggregator(monkeypatch) -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(TypeError, match=r"instance of torchjd\.aggregation\.Aggregator, got 'sum'"):
        TorchJD("sum")
    monkeypatch.setitem(__import__("sys").modules, "torchjd.aggregation", None)
    with pytest.raises(ImportError, match=r"pip install 'bmtl\[training\]'"):
        TorchJD("sum")


def direction(update, own: Step) -> torch.Tensor:
    """What the trunk descends."""
    return torch.einsum("rt,rtd->rd", update.weights, own.pulls) if update.trunk is None else update.trunk


@pytest.mark.parametrize("order", list(itertools.permutations(range(TASKS))))
@pytest.mark.parametrize("weighting", [Unitary(), GradNorm()])
def test_order_of_the_tasks_means_nothing(weighting, order, tasks) -> None:
    state, permuted = start(weighting, tasks), start(weighting, tasks)
    for seed in range(3):
        update, state = weighting.update(state, step(seed))
        other, permuted = weighting.update(permuted, reordered(step(seed), list(order)))
        torch.testing.assert_close(other.weights, update.weights[:, list(order)], rtol=1e-12, atol=0)
        torch.testing.assert_close(direction(other, reordered(step(seed), list(order))), direction(update, step(seed)))


def test_order_of_the_tasks_means_nothing_to_pcgrad() -> None:
    rng = np.random.default_rng(1)
    pulls = rng.normal(size=(TASKS, SIZE))
    meets = np.array([rng.permutation(TASKS) for _ in range(TASKS)])
    for order in map(np.array, itertools.permutations(range(TASKS))):
        place = np.argsort(order)
        moved, orders = pulls[order], place[meets[order]]
        found = [
            shares(torch.tensor(g @ g.T)[None], torch.tensor(o)[None])[0].numpy() @ g
            for g, o in ((pulls, meets), (moved, orders))
        ]
        np.testing.assert_allclose(*found, rtol=1e-12)


FACTOR = torch.tensor([1.0, 7.0, 0.3], dtype=torch.float64)


def test_pcgrad_grows_in_proportion_to_each_loss() -> None:
    # Projections do not know the length of what is projected on: the part of task t in the sum is proportional to its
    # own loss as long as nothing else is.
    g = step(11).pulls[0].numpy()
    meets = np.array([[0, 1, 2]] * TASKS)

    def parts(pulls: np.ndarray) -> np.ndarray:
        out = []
        for i in range(TASKS):
            own = pulls[i].copy()
            for j in meets[i]:
                if j != i and own @ pulls[j] < 0:
                    own -= own @ pulls[j] / (pulls[j] @ pulls[j]) * pulls[j]
            out.append(own)
        return np.array(out)

    factor = FACTOR.numpy()[:, None]
    np.testing.assert_allclose(parts(factor * g), factor * parts(g), rtol=1e-12)
    moved = torch.tensor(factor * g)
    share = shares((moved @ moved.T)[None], torch.tensor(meets)[None])[0]
    np.testing.assert_allclose(share @ moved, (factor * parts(g)).sum(axis=0), rtol=1e-11)


def test_gradnorm_comes_to_weights_that_undo_a_factor_and_the_sum_does_not(tasks) -> None:
    def settled(factor: torch.Tensor) -> torch.Tensor:
        own = GradNorm(alpha=0.0, learning_rate=2e-4)
        state, one = start(own, tasks), scaled(step(12), factor)
        for _ in range(20_000):
            update, state = own.update(state, one)
        return direction(update, one)

    plain, multiplied = settled(torch.ones_like(FACTOR)), settled(FACTOR)
    # Equal gradient norms up to one factor on all: the direction is what the factors do not change.
    cosine = torch.nn.functional.cosine_similarity(plain, multiplied)
    assert cosine.min() > 0.999
    both = (step(12), scaled(step(12), FACTOR))
    sums = [direction(Unitary().update(start(Unitary(), tasks), one)[0], one) for one in both]
    assert torch.nn.functional.cosine_similarity(*sums).max() < 0.95


def test_imtlg_does_not_see_a_factor(tasks) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    own = TorchJD(aggregation.IMTLG())
    found = [own.update(start(own, tasks), one)[0].trunk for one in (step(13), scaled(step(13), FACTOR))]
    assert torch.nn.functional.cosine_similarity(*found).min() > 1 - 1e-9
