"""Memory that runs out halves the batches and changes nothing else."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lite_bench.harness import memory
from lite_bench.harness import training as training_module
from lite_bench.harness.assembly import Assembly, build_estimator
from lite_bench.harness.checkpoints import read_checkpoint
from lite_bench.harness.core import Support
from lite_bench.harness.errors import RunError
from lite_bench.harness.evaluation import Evaluation
from lite_bench.harness.memory import (
    BatchSizes,
    is_out_of_memory,
    memory_advice,
    release_memory,
    without_frames,
)
from lite_bench.harness.runs import RunFolder
from lite_bench.harness.settings import Settings
from lite_bench.harness.step import TaskOutcome, accumulate_task_gradient
from tests.harness.small import Killed, Listener, Means, prepare, small_settings, small_suite


class Tight(nn.Module):
    """Class means of a small network that has memory for a few images only, from its ``since``-th call on."""

    seen: Tensor

    def __init__(self, most: int = 100, since: int = 0, error: type[BaseException] = torch.OutOfMemoryError) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 7 * 7, 8), nn.Tanh())
        self.register_buffer("seen", torch.zeros(()))
        self.most, self.since, self.error, self.calls = most, since, error, 0

    def features(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.training:
            self.seen.add_(len(images))
        if len(images) > self.most and self.calls > self.since:
            raise self.error("Tried to allocate memory: out of memory")
        values: Tensor = self.network(images.float() / 255)
        return values

    def adapt(self, support: Support, encode: Any) -> Means:
        features = encode(self.features, support.images)
        return Means(torch.stack([features[support.labels == c].mean(0) for c in range(support.way)]))

    def classify(self, state: Means, images: Tensor) -> Tensor:
        return -torch.cdist(self.features(images), state.means).square()


def assembly_of(learner: Tight, settings: Settings) -> Assembly:
    return Assembly(learner, learner, build_estimator(settings), torch.device("cpu"))


def run(folder: Path, learner: Tight, listener: Listener | None = None, **changes: Any) -> dict[str, Tensor]:
    settings = small_settings(**{"tasks": 6, "checkpoint_seconds": 0.0, **changes})
    training = prepare(settings, folder, listener=listener, assembly=assembly_of(learner, settings))
    training.execute()
    return read_checkpoint(training.run.checkpoint("last"))[1]


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "network" in name}


GRADIENTS = ["exact", "lite", "lite-stratified", "lite-importance"]


@pytest.mark.parametrize(
    ("gradient", "error"),
    [(gradient, torch.OutOfMemoryError) for gradient in GRADIENTS]
    + [("lite-importance", error) for error in (RuntimeError, MemoryError)],
)
def test_training_goes_on_with_half_the_batches(gradient: str, error: type[BaseException], tmp_path: Path) -> None:
    listener = Listener()
    tight = run(tmp_path / "tight", Tight(2, error=error), listener, batch_size=8, gradient=gradient)
    small = run(tmp_path / "small", Tight(), batch_size=2, gradient=gradient)
    large = run(tmp_path / "large", Tight(), batch_size=8, gradient=gradient)
    assert all(torch.equal(tight[name], small[name]) for name in weights(small))
    for name, tensor in weights(large).items():
        torch.testing.assert_close(tight[name], tensor, rtol=1e-4, atol=1e-5)
    assert [note for note in listener.notes if "Memory ran out" in note] == [
        f"Memory ran out with --batch-size {size} --query-batch-size {size} in step 1; the step starts again with "
        f"--batch-size {size // 2} --query-batch-size {size // 2}. The same images carry the same gradients: only "
        "rounding (and the masks of dropout) can differ."
        for size in (8, 4)
    ]


def test_what_an_abandoned_step_did_is_taken_back(tmp_path: Path) -> None:
    """Memory runs out in the middle of step 2: its first task, and running statistics, count once."""
    calls = Tight()
    run(tmp_path / "count", calls, tasks=2, batch_size=8, gradient="lite")
    half = run(tmp_path / "tight", Tight(4, since=calls.calls + 2), batch_size=8, gradient="lite")
    whole = run(tmp_path / "whole", Tight(), batch_size=8, gradient="lite")
    assert float(half["model.seen"]) == float(whole["model.seen"])
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(half[name], tensor, rtol=1e-4, atol=1e-5)


class Failing(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Lets memory run out at the ``at``-th operation inside it that makes a tensor, and follows all made before."""

    def __init__(self, at: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.at, self.made, self.failed_in = at, 0, ""
        self.storages: list[weakref.ref[torch.UntypedStorage]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        given = {a.untyped_storage()._cdata for a in args if isinstance(a, Tensor)}
        results = [r for r in (result if isinstance(result, list | tuple) else [result]) if isinstance(r, Tensor)]
        made = [r.untyped_storage() for r in results if r.numel() and r.untyped_storage()._cdata not in given]
        self.made += bool(made)
        if made and self.made == self.at:
            backward = torch._C._current_graph_task_id() != -1
            again = "recomputation" if torch.is_grad_enabled() else "backward"
            self.failed_in = again if backward else "forward"
            raise torch.OutOfMemoryError(str(func))
        self.storages += map(weakref.ref, made)
        return result

    def alive(self) -> int:
        return sum(storage() is not None for storage in self.storages)


PLACES = {"exact": {"recomputation"}, "full": set(), "lite": {"recomputation"}, "lite-importance": set()}


@pytest.mark.parametrize("gradient", PLACES)
def test_nothing_of_an_abandoned_step_is_alive_when_memory_is_released(
    gradient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out at every operation of a step in turn, until one more attempt gets through."""
    changes: dict[str, Any] = {"tasks": 1, "tasks_per_step": 1, "batch_size": 2, "gradient": gradient}
    changes["suite_options"] = {"way": 3, "shot": 1, "query": 1}
    untroubled = run(tmp_path / "untroubled", Tight(), **changes)
    settings, listener = small_settings(**changes), Listener()
    training = prepare(settings, tmp_path, listener=listener, assembly=assembly_of(Tight(), settings))
    monkeypatch.setattr(listener, "note", lambda text: training.lowered.clear())  # every attempt has batches of two
    monkeypatch.setattr(RunFolder, "set_status", lambda *args, **kwargs: None)  # a flush to the disk for each of them
    attempts: list[Failing] = []
    left = []

    def gradient_until_failure(*args: Any) -> TaskOutcome:
        attempts.append(Failing(len(attempts) + 1))
        with attempts[-1]:
            return accumulate_task_gradient(*args)

    def release_and_look() -> None:
        with monkeypatch.context() as patch:  # collecting takes long, and is needed for cycles only
            patch.setattr(memory, "gc", SimpleNamespace(collect=int))
            release_memory()
        if attempts[-1].alive():
            release_memory()
        left.append(attempts[-1].alive())

    monkeypatch.setattr(training_module, "accumulate_task_gradient", gradient_until_failure)
    monkeypatch.setattr(training_module, "release_memory", release_and_look)
    training.execute()
    assert {attempt.failed_in for attempt in attempts[:-1]} == {"forward", "backward"} | PLACES[gradient]
    assert left == [0] * (len(attempts) - 1)
    last = read_checkpoint(training.run.checkpoint("last"))[1]
    assert all(torch.equal(last[name], tensor) for name, tensor in untroubled.items())


def test_errors_behind_an_error_keep_no_tensor_alive() -> None:
    tensors: list[weakref.ref[Tensor]] = []

    def fail() -> None:
        tensors.append(weakref.ref(local := torch.ones(3)))
        raise MemoryError(f"no room beside {len(local)} numbers")

    def fall_back(*, explicit: bool) -> None:
        try:
            fail()
        except MemoryError as first:
            if explicit:
                raise torch.OutOfMemoryError("again") from first
            fail()

    for explicit in (True, False):
        try:
            fall_back(explicit=explicit)
        except (MemoryError, RuntimeError) as error:
            kept = without_frames(error)
        assert [tensor() for tensor in tensors] == [None] * len(tensors)
        assert isinstance(kept.__context__, MemoryError)
    assert len(tensors) == 3


def test_a_resumed_run_keeps_the_lowered_batches_from_the_same_step(tmp_path: Path) -> None:
    since = Tight()
    run(tmp_path / "count", since, tasks=2, batch_size=8)
    expected = run(tmp_path / "straight", Tight(2, since=since.calls), batch_size=8)
    for kill_at in (1, 2):
        folder = tmp_path / f"killed{kill_at}"
        with pytest.raises(Killed):
            run(folder, Tight(2, since=since.calls), Listener(kill_at=kill_at), batch_size=8)
        # Killed in step 1, its memory will run out later as before; killed in step 2, the record alone must do.
        resumed = run(folder, Tight(2, since=since.calls) if kill_at == 1 else Tight(), batch_size=8)
        assert all(torch.equal(resumed[name], expected[name]) for name in weights(expected)), kill_at
    status = json.loads(next((tmp_path / "straight").rglob("run.json")).read_text())
    assert status["batch_sizes_since_step"] == {"2": {"chunk": 2, "query": 2}}


def test_single_images_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--batch-size 1 --query-batch-size 1.*--gradient exact or a lower --lite-h"):
        run(tmp_path, Tight(0), batch_size=4)


@pytest.mark.parametrize("most", [1, 3])
def test_an_evaluation_goes_on_with_half_the_batches(most: int) -> None:
    settings = small_settings(batch_size=6)
    suite = small_suite(settings)
    (tasks, *_) = suite.tasks("test").values()

    def accuracies(learner: Tight, notes: list[str]) -> list[float]:
        estimator = build_estimator(settings)
        evaluation = Evaluation(learner, learner, estimator, settings, torch.device("cpu"), note=notes.append)
        return [float(score.accuracy or 0) for _, score in evaluation.scores(suite, tasks[:3])]

    notes: list[str] = []
    assert accuracies(Tight(most), notes) == accuracies(Tight(), [])
    assert len(notes) == (1 if most == 3 else 2)  # the sizes that fitted are kept for the next tasks
    assert "which changes no result" in notes[0]
    with pytest.raises(RunError, match="the smallest batches there are"):
        accuracies(Tight(0), [])


class Settled(Tight):
    """Its results depend on the batches."""

    fixed_batches = True


def test_batches_that_results_depend_on_are_never_lowered(tmp_path: Path) -> None:
    message = "makes? its results depend on them, so they are not lowered; choose smaller ones"
    with pytest.raises(RunError, match=message):
        run(tmp_path, Settled(3), batch_size=6)
    settings = small_settings(batch_size=6)
    suite, learner = small_suite(settings), Settled(3)
    (tasks, *_) = suite.tasks("test").values()
    evaluation = Evaluation(learner, learner, build_estimator(settings), settings, torch.device("cpu"))
    with pytest.raises(RunError, match=message):
        list(evaluation.scores(suite, tasks[:1]))


def test_what_counts_as_a_lack_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(RuntimeError("shapes"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_batch_sizes_halve_to_one() -> None:
    assert BatchSizes(5, 1).halved() == BatchSizes(2, 1)
    assert BatchSizes(1, 1).smallest
    assert not BatchSizes(1, 2).smallest
    assert "--batch-size 1" in memory_advice(BatchSizes(1, 1), "lite", 40)
