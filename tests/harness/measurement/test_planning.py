"""A memory budget is met by measuring, and what cannot be met is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lite_bench.harness.assembly import Assembly, build_estimator
from lite_bench.harness.errors import IncompatibleError, UsageError
from lite_bench.harness.measurement import planning
from lite_bench.harness.measurement.peak import Peak, measure_peak, resident_bytes
from lite_bench.harness.measurement.planning import HEADROOM, Plan, choose_sizes, doubling
from lite_bench.harness.memory import BatchSizes
from lite_bench.models.protonets import ProtoNets
from tests.harness.small import small_settings
from tests.models.toys import build, tiny_episode

MB = 10**6


def plan(budget: str, learner: Any = None, sizes: tuple[int, ...] = (20, 40), **changes: Any) -> Plan:
    settings = small_settings(memory_budget=budget, **{"lite_h": 5, **changes})
    learner = build(ProtoNets) if learner is None else learner
    subject = Assembly(learner, learner, build_estimator(small_settings()), torch.device("cpu"))
    return choose_sizes(settings, subject, [tiny_episode(n=n, m=30) for n in sizes])


Model = Callable[[BatchSizes, int], tuple[float, int]]


@pytest.fixture
def modelled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model], None]:
    """Replace measuring by a formula for seconds and bytes."""

    def use(model: Model) -> None:
        monkeypatch.setattr(planning._Search, "_measure", lambda self, sizes, h: model(sizes, h))

    return use


def test_a_real_budget_is_kept_and_everything_is_recorded() -> None:
    found = plan("64GB")
    assert found.n_support == 40  # the largest of the tasks
    assert found.budget == 64 * 10**9
    assert all(trial.fits for trial in found.trials)
    assert (found.chosen.bytes or 0) <= HEADROOM * found.budget
    assert found.h == 5
    content = found.plain()
    assert content["trials"][0]["sizes"] == {"chunk": 4, "query": 4}
    assert "Chosen for 64 GB: --batch-size" in str(found)


def test_the_fastest_that_fits_wins(modelled: Any) -> None:
    modelled(lambda sizes, h: (1 / sizes.chunk + 1 / sizes.query, sizes.chunk * 10 * MB + sizes.query * 5 * MB))
    found = plan("400MB")
    assert found.sizes == BatchSizes(16, 30)  # 32 and 32 would take 480 MB; 16 and 30 take 310 of the 360
    assert not next(t for t in found.trials if t.sizes == BatchSizes(32, 32)).fits


def test_larger_batches_that_are_no_faster_are_left(modelled: Any) -> None:
    modelled(lambda sizes, h: (1.0 + sizes.chunk / 100 + sizes.query / 100, MB))
    found = plan("1GB")
    assert found.sizes == BatchSizes(4, 4)  # 4 and 2 are faster by less than 3 %
    assert len(found.trials) < 8


def test_single_images_are_tried_last(modelled: Any) -> None:
    modelled(lambda sizes, h: (1.0, sizes.chunk * 40 * MB + sizes.query * 10 * MB))
    assert plan("60MB").sizes == BatchSizes(1, 1)


def test_a_budget_that_nothing_fits_is_refused_with_what_it_takes(modelled: Any) -> None:
    modelled(lambda sizes, h: (1.0, sizes.chunk * 90 * MB))
    with pytest.raises(
        UsageError, match=r"--memory-budget 60MB is too little.* 40 support images needs at least 0.1 GB"
    ):
        plan("60MB")


def test_running_out_while_measuring_is_an_answer(modelled: Any) -> None:
    def model(sizes: BatchSizes, h: int) -> tuple[float, int]:
        if sizes.chunk > 8:
            raise torch.OutOfMemoryError
        return 1 / sizes.chunk, MB

    modelled(model)
    found = plan("1GB")
    assert found.sizes.chunk == 8
    assert [trial.bytes for trial in found.trials if not trial.fits] == [None]
    modelled(lambda sizes, h: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(UsageError, match="more memory than there is"):
        plan("1GB")
    modelled(lambda sizes, h: (_ for _ in ()).throw(RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        plan("1GB")


def test_an_automatic_h_is_as_large_as_fits(modelled: Any) -> None:
    modelled(lambda sizes, h: (float(h), h * 10 * MB))
    found = plan("300MB", lite_h="auto")
    assert found.h == found.sizes.chunk == 16
    modelled(lambda sizes, h: (float(h), MB))
    assert plan("300MB", lite_h="auto").h == 40  # no more than there are support images


def test_what_makes_the_gradient_wrong_is_refused_before_measuring() -> None:
    with pytest.raises(IncompatibleError, match="--gradient"):
        plan("1GB", learner=build(ProtoNets, batch_statistics=True).train())
    with pytest.raises(UsageError, match="--memory-budget is not given"):
        choose_sizes(small_settings(), Assembly(None, None, None, torch.device("cpu")), [])  # type: ignore[arg-type]  # never looked at


def test_sizes_double_up_to_the_largest() -> None:
    assert list(doubling(4, 20)) == [4, 8, 16, 20]
    assert list(doubling(4, 4)) == [4]
    assert list(doubling(4, 3)) == []


def test_peak_memory_on_a_cpu_counts_every_byte_of_torch() -> None:
    def work() -> None:
        a = torch.zeros(1_000_000)  # 4 MB
        b = a + 1  # 8 MB
        del a
        c = b * 2  # 8 MB
        del b, c
        torch.zeros(100)

    peak = measure_peak(work, torch.device("cpu"))
    assert peak == Peak(peak.tensors, peak.tensors)
    assert 8_000_000 <= peak.tensors < 8_000_100  # and a few scalars
    kept = []
    assert measure_peak(lambda: kept.append(torch.zeros(500_000)), torch.device("cpu")).tensors == pytest.approx(
        2_000_000, abs=100
    )
    assert resident_bytes() > 10**8
