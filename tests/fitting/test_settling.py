"""The rule that lowers the learning rate and stops."""

from __future__ import annotations

import numpy as np
import pytest

from bmtl.fitting.settling import CHUNK, DUE, MIN_GAIN, STAGES, WARMUP, WINDOW, Settling

CELLS = 500.0
CHUNKS = 1000


def warmed(runs: int = 1, chunks: int = CHUNKS) -> Settling:
    """After the warm-up."""
    settling = Settling(runs, CELLS, chunks)
    for _ in WARMUP:
        settling.look(np.zeros((runs, CHUNK)))
    return settling


def look(settling: Settling, *losses: float) -> None:
    settling.look(np.repeat(np.array(losses, dtype=float)[:, None], CHUNK, axis=1))


def test_warm_up_scales_the_likelihood_and_is_not_judged() -> None:
    settling = Settling(1, CELLS, CHUNKS)
    factors = []
    for _ in range(len(WARMUP) + 2 * WINDOW):
        assert settling.stage == [0]
        factors.append(settling.likelihood)
        look(settling, -1e9 if len(settling.trace) < len(WARMUP) else 5.0)
    assert factors == [*WARMUP, *[1.0] * (2 * WINDOW)]
    assert np.isnan(settling.trace[: len(WARMUP)]).all()
    assert settling.stage == [1]


def test_stays_while_the_loss_falls() -> None:
    settling = warmed()
    for step in range(40):
        look(settling, 1000.0 - step * 2 * MIN_GAIN * CELLS)
    assert settling.stage == [0] and not settling.settled


def test_each_stage_ends_after_two_windows_and_the_last_settles() -> None:
    settling, rates = warmed(), []
    for _ in range(2 * WINDOW * len(STAGES)):
        rates.append(float(settling.factor[0]))
        look(settling, 7.0)
    assert settling.settled
    assert rates == [rate for rate in STAGES for _ in range(2 * WINDOW)]
    assert settling.factor == [0.0]
    look(settling, -1e6)
    assert settling.settled


@pytest.mark.parametrize(("gain", "stage"), [(0.9, 1), (1.1, 0)], ids=["too little", "enough"])
def test_improvement_counts_per_cell_and_chunk(gain: float, stage: int) -> None:
    settling = warmed()
    for step in range(2 * WINDOW):
        look(settling, 50.0 - step * gain * MIN_GAIN * CELLS)
    assert settling.stage == [stage]


def test_noise_does_not_end_a_stage_that_makes_progress() -> None:
    """Chunks that fall by half of their noise each go on; the best of them so far would have ended the stage."""
    noise = np.random.default_rng(0).normal(size=60)
    settling = warmed()
    for step in range(60):
        look(settling, 1000.0 - 0.5 * step + noise[step])
    assert settling.stage == [0]
    assert max(np.diff(np.flatnonzero(np.diff(np.minimum.accumulate(np.array(settling.trace[4:])[:, 0]))))) > 2


def test_each_run_settles_in_its_own_time() -> None:
    settling = warmed(runs=2)
    for step in range(2 * WINDOW):
        look(settling, 3.0, 100.0 - step)
    assert list(settling.stage) == [1, 0] and list(settling.factor) == [STAGES[1], STAGES[0]]
    for step in range(2 * WINDOW * len(STAGES)):
        look(settling, 3.0, 90.0 - step)
    assert list(settling.settled) == [True, False] and list(settling.factor) == [0.0, STAGES[0]]
    for _ in range(2 * WINDOW * len(STAGES) + WINDOW):
        look(settling, 3.0, 60.0)
    assert settling.settled.all()


def test_later_stages_begin_before_the_chunks_are_spent() -> None:
    """A run that never settles at a high rate still gets its time at lower ones, and is not said to have settled."""
    chunks = 50
    settling = Settling(1, CELLS, chunks)
    stages = []
    for step in range(chunks):
        look(settling, -100.0 * step)
        stages.append(int(settling.stage[0]))
    assert np.searchsorted(stages, [1, 2]).tolist() == [round(share * chunks) - 1 for share in DUE]
    assert stages[-1] == 2 and not settling.settled


def test_trace_is_the_mean_of_each_chunk() -> None:
    settling = warmed(runs=2)
    losses = np.random.default_rng(0).normal(size=(2, CHUNK))
    settling.look(losses)
    np.testing.assert_allclose(settling.trace[-1], losses.mean(axis=1))
    assert len(settling.trace) == len(WARMUP) + 1


def test_single_steps_that_are_not_finite_are_left_out() -> None:
    settling = warmed()
    losses = np.ones((1, CHUNK))
    losses[0, : CHUNK // 2] = np.inf
    losses[0, 0] = np.nan
    settling.look(losses)
    assert settling.trace[-1] == [1.0]
    assert not settling.failed.any()


def test_losses_that_a_float_holds_but_not_their_sum() -> None:
    settling = warmed()
    for _ in range(2 * WINDOW):
        settling.look(np.full((1, CHUNK), 3e38, dtype=np.float32))
    assert not settling.failed.any() and np.isfinite(settling.trace[-1]).all()


def test_a_run_of_which_most_steps_are_not_finite_has_failed_and_others_go_on() -> None:
    settling = warmed(runs=2)
    losses = np.ones((2, CHUNK))
    losses[0, : CHUNK // 2 + 1] = np.nan
    settling.look(losses)
    assert settling.failed.tolist() == [True, False]
    assert settling.settled.tolist() == [True, False]
    assert settling.factor.tolist() == [0.0, 1.0]
    losses[0] = np.nan
    settling.look(losses)
    assert settling.failed.tolist() == [True, False]
