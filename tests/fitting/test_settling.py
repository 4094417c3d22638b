"""When an optimiser stops."""

from __future__ import annotations

import numpy as np
import pytest

from bmtl.fitting.settling import CHUNK, MIN_GAIN, PATIENCE, STAGES, WARMUP, Settling

CELLS = 100.0


def warmed(runs: int = 1) -> Settling:
    """Past the warm-up."""
    settling = Settling(runs, CELLS)
    for _ in WARMUP:
        settling.look(np.zeros((runs, CHUNK)))
    return settling


def look(settling: Settling, *losses: float) -> None:
    settling.look(np.repeat(np.array(losses, dtype=float)[:, None], CHUNK, axis=1))


def test_warm_up_scales_the_likelihood_and_is_not_judged() -> None:
    settling = Settling(1, CELLS)
    factors = []
    for _ in range(len(WARMUP) + 2):
        factors.append(settling.likelihood)
        look(settling, -1e9 if len(settling.trace) < len(WARMUP) else 5.0)
    assert factors == [*WARMUP, 1.0, 1.0]
    assert np.isnan(settling.trace[: len(WARMUP)]).all()
    assert settling.best == 5.0


def test_stays_while_the_loss_falls() -> None:
    settling = warmed()
    for step in range(40):
        look(settling, 1000.0 - step * 2 * MIN_GAIN * CELLS)
    assert settling.stage == [0] and not settling.settled


def test_each_stage_ends_after_patience_and_the_last_settles() -> None:
    settling, rates = warmed(), []
    for _ in range(1 + PATIENCE * len(STAGES)):
        rates.append(float(settling.factor[0]))
        look(settling, 7.0)
    assert settling.settled
    # The first look of all sets the mark; later stages begin with the mark they ended with.
    assert rates == [STAGES[0]] * (PATIENCE + 1) + [rate for rate in STAGES[1:] for _ in range(PATIENCE)]
    assert settling.factor == [0.0]
    look(settling, -1e6)
    assert settling.settled


@pytest.mark.parametrize(("gain", "stage"), [(0.9, 1), (1.1, 0)], ids=["too little", "enough"])
def test_improvement_counts_per_cell(gain: float, stage: int) -> None:
    """A gain is judged against the best so far, in nats a cell."""
    settling = warmed()
    look(settling, 50.0)
    for _ in range(PATIENCE):
        look(settling, float(settling.best[0]) - gain * MIN_GAIN * CELLS)
    assert settling.stage == [stage]


def test_each_run_settles_in_its_own_time() -> None:
    settling, alone = warmed(runs=2), warmed()
    for step in range(1 + PATIENCE):
        look(settling, 3.0, 100.0 - step)
        look(alone, 3.0)
    assert list(settling.stage) == [1, 0] and list(settling.factor) == [STAGES[1], STAGES[0]]
    for step in range(PATIENCE * len(STAGES)):
        look(settling, 3.0, 90.0 - step)
        look(alone, 3.0)
    assert list(settling.settled) == [True, False] and list(settling.factor) == [0.0, STAGES[0]]
    assert alone.settled
    for _ in range(1 + PATIENCE * len(STAGES)):
        look(settling, 3.0, 80.0)
    assert settling.settled.all()


def test_a_worse_chunk_does_not_move_the_mark() -> None:
    settling = warmed()
    look(settling, 10.0)
    look(settling, 30.0)
    look(settling, 9.0)
    assert settling.waited[0] == 0 and settling.best[0] == 9.0


def test_trace_is_the_mean_of_each_chunk() -> None:
    settling = warmed(runs=2)
    losses = np.random.default_rng(0).normal(size=(2, CHUNK))
    settling.look(losses)
    np.testing.assert_allclose(settling.trace[-1], losses.mean(axis=1))
    assert len(settling.trace) == len(WARMUP) + 1
