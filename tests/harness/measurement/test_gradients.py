"""The study of gradient estimators finds what enumeration proves."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from lite_bench.harness.assembly import Assembly, build_estimator
from lite_bench.harness.core import Episode, Support
from lite_bench.harness.errors import IncompatibleError, RunError, UsageError
from lite_bench.harness.measurement.gradients import (
    Case,
    Finding,
    Study,
    by_part,
    check_tasks_alike,
    describe,
    make_cases,
)
from lite_bench.harness.measurement.parts import parts, trainable_parts, untouched_parts
from lite_bench.models.cnaps import CNAPs
from lite_bench.models.protonets import ProtoNets
from lite_bench.models.simple_cnaps import SimpleCNAPs
from tests.harness.small import small_settings
from tests.models.toys import build, tiny_episode

LEARNERS = [ProtoNets, CNAPs, SimpleCNAPs]


def study(learner: Any, cases: list[Case], draws: int = 2, tasks: int = 1, **sizes: int) -> list[Finding]:
    estimator = build_estimator(small_settings())
    subject = Assembly(learner, learner, estimator, torch.device("cpu"))
    episodes = [tiny_episode(n=8, seed=seed) for seed in range(tasks)]
    return Study(subject, sizes.get("batch", 100), sizes.get("chunk", 100), draws).run(episodes, cases, tasks)


@pytest.mark.parametrize(
    "factory", [LEARNERS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in LEARNERS[1:])]
)
def test_it_tells_unbiased_from_biased(factory: Any) -> None:
    names = ["lite", "lite-stratified", "lite-importance", "lite-code", "lite-paper"]
    findings = study(build(factory), [Case(name, 2) for name in names], draws=128)
    for finding in findings:
        for part, found in finding.parts.items():
            if finding.case.estimator in ("lite-code", "lite-paper"):
                continue
            if part == "head":  # its weights sit after the sum over the support set, so nothing in it is drawn
                assert (found.rmse < 1e-10, found.p_value) == (True, None)
                continue
            assert found.p_value is not None
            assert found.p_value > 0.002, finding.case
            assert found.gain == pytest.approx(1, abs=0.6)
    first = {finding.case.estimator: next(iter(finding.parts.values())) for finding in findings}
    for name in ("lite-code", "lite-paper"):
        assert (first[name].p_value or 1) < 0.002, name
        assert first[name].bias > 0.02, name


@pytest.mark.parametrize("factory", LEARNERS)
def test_exact_full_and_h_of_n_are_at_zero(factory: Any) -> None:
    cases = [Case("exact", None), Case("full", None), Case("lite", 8), Case("lite-importance", 8)]
    for finding in study(build(factory), cases, chunk=3):
        for found in finding.parts.values():
            assert found.rmse < 1e-10
            assert found.cosine == pytest.approx(1)
        assert finding.seconds > 0
        assert finding.peak_bytes > 0


def test_parts_are_those_a_reader_thinks_in() -> None:
    assert list(study(build(ProtoNets), [Case("exact", None)])[0].parts) == ["backbone"]
    assert list(study(build(CNAPs), [Case("exact", None)])[0].parts) == ["all", "set_encoder", "generators", "head"]
    learner = build(SimpleCNAPs)
    assert list(trainable_parts(learner)) == ["set_encoder", "generators"]
    assert "body.backbone" in parts(learner)
    assert untouched_parts(learner) == ["set_encoder", "generators"]


def test_vectors_by_part_add_up() -> None:
    learner = build(CNAPs)
    listed = [p for p in learner.parameters() if p.requires_grad]
    vectors = by_part(learner, [torch.full_like(p, n) for n, p in enumerate(listed)])
    assert len(vectors["all"]) == sum(p.numel() for p in listed)
    assert sum(float(v.sum()) for name, v in vectors.items() if name != "all") == pytest.approx(
        float(vectors["all"].sum())
    )
    assert by_part(learner, [None] * len(listed))["head"].abs().max() == 0


def test_several_tasks_count_as_one_long_gradient() -> None:
    (one,), (two,) = (study(build(ProtoNets), [Case("lite", 2)], draws=16, tasks=n) for n in (1, 2))
    assert one.draws == two.draws == 16
    assert one.parts["backbone"].rmse != two.parts["backbone"].rmse


def test_a_study_leaves_the_learner_as_it_was() -> None:
    learner = build(SimpleCNAPs)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    study(learner, [Case("lite", 2)])
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


def test_bf16_is_compared_with_fp32() -> None:
    learner = build(ProtoNets).float()
    exact, low = study(learner, [Case("exact", None), Case("exact", None, "bf16")])
    assert exact.parts["backbone"].rmse < 1e-5
    assert 1e-4 < low.parts["backbone"].rmse < 0.2
    assert low.parts["backbone"].cosine > 0.98


def test_batch_statistics_are_refused() -> None:
    learner = build(SimpleCNAPs, set_statistics="batch")
    with pytest.raises(IncompatibleError, match="--gradient exact needs every image to be encoded by itself"):
        study(learner, [Case("subsample", 2)])


def test_memory_that_runs_out_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = build(ProtoNets)

    def greedy(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(learner, "classify", greedy)
    with pytest.raises(RunError, match="Memory ran out with --batch-size 100"):
        study(learner, [Case("lite", 2)])


def test_a_study_that_is_stopped_keeps_what_is_finished() -> None:
    learner, stop = build(ProtoNets), threading.Event()
    subject = Assembly(learner, learner, build_estimator(small_settings()), torch.device("cpu"))
    cases = [Case("exact", None), Case("lite", 2), Case("lite", 4)]

    seen: list[tuple[int, int, str]] = []

    def notify(done: int, total: int, what: str) -> None:
        seen.append((done, total, what))
        if what == "lite H=4":
            stop.set()

    studied = Study(subject, 100, 100, 3, notify=notify, stop=stop)
    assert [finding.case for finding in studied.run([tiny_episode()], cases, 1)] == cases[:2]
    assert seen == [(1, 7, "exact"), *((n, 7, "lite H=2") for n in (2, 3, 4)), (5, 7, "lite H=4")]
    assert studied.run([tiny_episode()], cases, 1) == []


def test_without_h_there_is_one_draw() -> None:
    none, some = study(build(CNAPs), [Case("lite", 0), Case("lite", 2)], draws=9)
    assert (none.draws, some.draws) == (1, 9)
    assert none.parts["set_encoder"].gain == 0
    assert none.parts["set_encoder"].rmse == pytest.approx(1)


def test_cases_and_what_is_said_of_them() -> None:
    cases, notes = make_cases(["exact", "lite", "subsample"], [0, 5, 40, 200, 300], 100, 10)
    assert [describe(case) for case in cases] == [
        "exact", "lite H=0", "lite H=5", "lite H=40", "lite H=100", "subsample H=10", "subsample H=40",
        "subsample H=100",
    ]  # fmt: skip
    assert "--h 200, 300: tasks have 100 support images, so H = 100 is used, with the scale 1" in notes[0]
    assert "--h 0" in notes[1]
    assert "subsample takes at least one image of every class" in notes[2]
    assert [describe(case) for case in make_cases(["exact"], [1], 9, 3, ["fp32", "bf16"])[0]] == ["exact", "exact bf16"]
    with pytest.raises(UsageError, match="--gradient names nothing"):
        make_cases([], [1], 9, 3)


def test_tasks_of_different_sizes_have_no_common_h() -> None:
    small, large = tiny_episode(n=6), tiny_episode(n=8)
    assert check_tasks_alike([small, small]) == (6, 2)
    with pytest.raises(IncompatibleError, match="from 6 to 8 support images"):
        check_tasks_alike([small, large])
    wide = Support(small.support.images, small.support.labels, 3)
    other: Episode = replace(small, support=wide)
    with pytest.raises(IncompatibleError, match="fix --way and --shot"):
        check_tasks_alike([small, other])
