"""The parts of a training task, and the floor from counted multiply-accumulates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lite_bench.harness.assembly import assemble
from lite_bench.harness.measurement import profiling
from lite_bench.harness.measurement.profiling import PARTS, Costs, Profiler, Work
from lite_bench.harness.memory import BatchSizes
from tests.harness.small import small_settings

SIDE = 32
CONV4 = 16 * 16 * 64 * 64 * 9 + 8 * 8 * 64 * 64 * 9 + 4 * 4 * 64 * 64 * 9  # blocks 2 to 4 on 32-pixel images
CONV4_FIRST = 32 * 32 * 1 * 64 * 9
SET_ENCODER = 32 * 32 * 3 * 64 * 9 + (16 * 16 + 8 * 8 + 4 * 4 + 2 * 2) * 64 * 64 * 9


def profiler(learner: str, **changes: Any) -> Profiler:
    settings = small_settings(learner=learner, backbone="conv4+gn", image_size=SIDE, **changes)
    return Profiler(assemble(settings, SIDE), SIDE, way=3, n_query=6, sizes=BatchSizes(4, 4), repeats=1)


def test_counted_costs_equal_the_closed_form_of_the_networks() -> None:
    """Forward once per layer; backward once for the weights and once for the input, which the first layer skips."""
    costs = profiler("protonets").count()
    forward = CONV4 + CONV4_FIRST
    backward = 2 * CONV4 + CONV4_FIRST
    assert costs.support_forward == pytest.approx(forward, rel=1e-3)
    assert costs.support_backward == pytest.approx(backward, rel=1e-3)
    assert costs.query == pytest.approx(forward + backward, rel=1e-3)


def test_a_frozen_backbone_costs_only_the_way_back_to_its_modulation() -> None:
    costs = profiler("cnaps").count()
    forward = CONV4 + CONV4_FIRST
    assert costs.support_forward == pytest.approx(SET_ENCODER + forward, rel=1e-2)
    own = 2 * (SET_ENCODER - 32 * 32 * 3 * 64 * 9) + 32 * 32 * 3 * 64 * 9
    assert costs.support_backward == pytest.approx(own + CONV4, rel=1e-2)  # weights frozen: inputs only
    assert costs.query == pytest.approx(forward + CONV4, rel=2e-2)


def test_the_floor_is_what_a_task_cannot_do_without() -> None:
    assert Costs(5, 7, 11).floor(100, 10, 3) == 500 + 70 + 33


@pytest.mark.parametrize("gradient", ["lite", "lite-importance", "exact", "full", "subsample"])
def test_every_part_of_a_task_is_timed(gradient: str) -> None:
    subject = profiler("simple_cnaps")
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    work = Work(gradient, None if gradient in ("exact", "full") else 4, 9)
    found = subject.measure(work, subject.count())
    assert found.failed is None
    assert tuple(found.parts) == PARTS
    assert all(seconds > 0 for seconds in found.parts.values())
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert found.peak_bytes > 0
    assert found.floor_seconds > 0
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())


def test_exact_is_flat_in_memory_where_full_grows() -> None:
    subject = profiler("simple_cnaps")
    costs = subject.count()

    def growth(gradient: str) -> float:
        small, large = (subject.measure(Work(gradient, None, n), costs).peak_bytes for n in (30, 120))
        return large / small

    assert growth("exact") < 1.4  # the Gaussian head grows with N
    assert growth("full") > 2.5


def test_running_out_of_memory_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = profiler("protonets")
    costs = subject.count()

    def greedy(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(subject.assembly.learner, "classify", greedy)
    assert subject.measure(Work("lite", 4, 9), costs).failed == "out of memory"


def test_a_task_that_would_fill_the_machine_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = profiler("protonets")
    costs = subject.count()
    monkeypatch.setattr(profiling, "machine_bytes", lambda: 10**7)
    failed = subject.measure(Work("full", None, 300), costs).failed
    assert failed is not None
    assert failed.startswith("would need about")
    assert subject.measure(Work("exact", None, 30), costs).failed is None
