"""Costs of runs that are planned: counted without computing, against tasks that are computed and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lite_bench.harness.assembly import assemble, build_learner
from lite_bench.harness.core import Episode, QueryBatch, Support, Task, TaskSizes
from lite_bench.harness.measurement.counting import count
from lite_bench.harness.measurement.expense import Appraiser, Expense, TrainingParts, spread_out, training_parts
from lite_bench.harness.measurement.profiling import Profiler
from lite_bench.harness.memory import BatchSizes
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.reproduction import Work
from lite_bench.harness.settings import Settings, resolve
from lite_bench.harness.step import accumulate_task_gradient
from tests.harness.small import small_settings

SIDE = 32


def settings(learner: str, **changes: Any) -> Settings:
    return small_settings(learner=learner, backbone="conv4+gn", image_size=SIDE, **changes)


def work(kind: Any, own: Settings, **changes: Any) -> Work:
    values: dict[str, Any] = {"tasks": 1, "way": 3, "support": 12, "query": 6}
    return Work(kind, own, **(values | changes))


def episode(n_support: int, n_query: int, way: int = 3) -> Episode:
    images = torch.zeros(n_support + n_query, 3, SIDE, SIDE, dtype=torch.uint8)
    images[::2] = 200
    labels = torch.arange(n_support) % way
    query = QueryBatch(images[n_support:], torch.arange(n_query) % way)
    return Episode(Task("t@1", "s", "train", 0), Support(images[:n_support], labels, way), (query,), n_query)


def computed(own: Settings, n_support: int, n_query: int, chunk: int = 3) -> int:
    """Multiply-accumulates of a training task that is really run with its estimator."""
    learner, module = build_learner(own, SIDE)
    module.train()
    estimator = ESTIMATORS.load(own.gradient)(own.h, chunk)
    generator = torch.Generator().manual_seed(0)
    task = episode(n_support, n_query)
    return count(lambda: accumulate_task_gradient(learner, task, estimator, 64, generator)).macs


# --- a training task


@pytest.mark.parametrize("learner", ["protonets", "cnaps", "simple_cnaps"])
@pytest.mark.parametrize(
    ("gradient", "h"), [("full", 0), ("exact", 0), ("lite", 4), ("lite-importance", 6), ("lite-stratified", 40)]
)
def test_an_estimate_of_training_is_what_a_task_takes_when_it_is_run(learner: str, gradient: str, h: int) -> None:
    own = settings(learner, gradient=gradient, lite_h=h)
    estimate = Appraiser().expense([work("training", own)])
    assert estimate.unknown == ""
    assert estimate.training == pytest.approx(computed(own, 12, 6), rel=0.001)
    assert estimate.evaluation == 0


def test_what_fits_into_one_batch_is_run_once_and_the_estimate_says_twice() -> None:
    own = settings("protonets", gradient="lite", lite_h=4)
    learner, module = build_learner(own, SIDE)
    again = training_parts(learner, module, TaskSizes((4, 4, 4)), 6, SIDE).forward * 4 / 12
    estimate = Appraiser().expense([work("training", own)]).training
    assert estimate - again == pytest.approx(computed(own, 12, 6, chunk=64), rel=0.001)


def test_subsampling_costs_only_what_it_sees() -> None:
    own = settings("protonets", gradient="subsample", lite_h=6)
    estimate = Appraiser().expense([work("training", own)])
    assert estimate.training == pytest.approx(computed(own, 12, 6), rel=0.001)


def test_parts_per_image_are_those_of_the_profiler_which_computes() -> None:
    own = settings("simple_cnaps")
    costs = Profiler(assemble(own, SIDE), SIDE, way=3, n_query=6, sizes=BatchSizes(4, 4), repeats=1).count()
    parts = training_parts(*build_learner(own, SIDE), TaskSizes((4, 4, 4)), 6, SIDE)
    assert parts.forward / 12 == pytest.approx(costs.support_forward, rel=0.02)
    assert parts.backward / 12 == pytest.approx(costs.support_backward, rel=0.02)
    assert parts.query / 6 == pytest.approx(costs.query, rel=0.02)


def test_the_share_of_an_estimator_in_closed_form() -> None:
    """Forward 100, backward 200, queries 30 of N = 10 items."""
    parts = TrainingParts(100, 200, 30)
    expected = {"full": 100 + 200 + 30, "exact": 2 * 100 + 200 + 30, "lite": 1.4 * 100 + 0.4 * 200 + 30}
    expected["subsample"] = 0.4 * 100 + 0.4 * 200 + 30
    for name, macs in expected.items():
        assert parts.of(ESTIMATORS.load(name)(4, 1), 4, 10) == pytest.approx(macs), name
    assert parts.of(ESTIMATORS.load("lite")(40, 1), 40, 10) == pytest.approx(expected["exact"])
    assert parts.of(ESTIMATORS.load("lite")(0, 1), 0, 10) == pytest.approx(130)


def test_an_inner_loop_is_counted_with_all_its_steps() -> None:
    few, many = (
        Appraiser().expense([work("training", settings("fomaml", gradient="full", params={"steps": steps}))]).training
        for steps in (2, 12)
    )
    each = computed(settings("fomaml", gradient="full", params={"steps": 2}), 12, 6)
    assert few == pytest.approx(each, rel=0.02)
    assert 4 < many / few < 6


def test_clips_cost_as_their_frames() -> None:
    own = settings("protonets", gradient="exact")
    images = Appraiser().expense([work("training", own, support=24, query=12)]).training
    clips = Appraiser().expense([work("training", own, support=6, query=3, frames=4)]).training
    assert clips == pytest.approx(images, rel=0.01)


def test_nothing_is_trained_by_counting() -> None:
    learner, module = build_learner(settings("simple_cnaps"), SIDE)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    training_parts(learner, module, TaskSizes((4, 4, 4)), 6, SIDE)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


# --- an evaluation


@pytest.mark.parametrize("learner", ["protonets", "simple_cnaps", "finetuner"])
def test_an_estimate_of_an_evaluation_is_adapting_and_classifying_when_run(learner: str) -> None:
    own = settings(learner)
    built, module = build_learner(own, SIDE)
    module.eval()
    encode = ESTIMATORS.load("full")(0, 64)
    task = episode(12, 6)

    @torch.no_grad()
    def run() -> None:
        state = built.adapt(task.support, encode.begin(task.support, torch.Generator()).encode())
        for batch in task.query:
            built.classify(state, batch.images)

    estimate = Appraiser().expense([work("evaluation", own)])
    assert estimate.evaluation == pytest.approx(count(run).macs, rel=0.03)
    assert estimate.training == 0


def test_tasks_add_up() -> None:
    own = settings("protonets")
    one, ten = (Appraiser().expense([work("evaluation", own, tasks=n)]).macs for n in (1, 10))
    assert ten == pytest.approx(10 * one)
    both = Appraiser().expense([work("evaluation", own), work("training", own)])
    assert both.macs == both.training + both.evaluation > both.training > 0


def test_queries_that_tasks_share_are_computed_once_where_no_task_changes_their_features() -> None:
    for learner, shares in (("protonets", True), ("simple_cnaps", False)):
        own = settings(learner)
        appraiser = Appraiser()
        alone, shared = (appraiser.expense([work("evaluation", own, query=100, sharing=n)]).evaluation for n in (1, 5))
        assert (shared < 0.5 * alone) is shares, learner


# --- what cannot be estimated


def test_what_cannot_be_counted_is_said_and_the_rest_is_given() -> None:
    good, bad = settings("protonets"), settings("finetuner", params={"pretrain_classes": 7}, gradient="full")
    found = Appraiser().expense([work("evaluation", good), work("training", bad)])
    assert found.evaluation > 0
    assert found.training == 0
    assert found.unknown.startswith("training of finetuner is not counted: -P pretrain_classes=7 does not fit")


def test_reasons_are_given_once() -> None:
    assert (Expense(1, 2, "a") + Expense(3, 4, "a")) == Expense(4, 6, "a")
    assert (Expense(unknown="a") + Expense(unknown="b")).unknown == "a b"


def test_weights_are_not_read() -> None:
    own = settings("protonets", weights=Path("nowhere.safetensors"), pretrained=True)
    assert Appraiser().expense([work("evaluation", own)]).unknown == ""


def test_items_are_spread_evenly() -> None:
    own = settings("protonets")
    assert spread_out(work("training", own, way=3, support=11, frames=8)) == TaskSizes((4, 4, 3), 8)
    assert spread_out(work("training", own, way=4, support=2)) == TaskSizes((1, 1, 0, 0))


def test_the_published_model_of_vtab_md_costs_what_its_profile_says() -> None:
    """docs/gradients.md counts 1.09, 1.69 and 0.758 G per image of Simple CNAPs with EfficientNet-B0 at 224 pixels."""
    own = resolve({"pretrained": False, "gradient": "lite"}, Path("recipes/vtab_md_simple_cnaps_224.toml"))
    found = Appraiser().expense([work("training", own, way=10, support=500, query=100)])
    expected = (540 * 1.09 + 40 * 1.69 + 100 * 0.758) * 1e9
    assert found.training == pytest.approx(expected, rel=0.02)
