"""Training: the gradient of a step, what is kept, and that a kill at any instant changes nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lite_bench.harness.assembly import Assembly, assemble, seeded, training_notes
from lite_bench.harness.checkpoints import read_checkpoint, read_info
from lite_bench.harness.core import Episode, Split, Task, stable_key
from lite_bench.harness.errors import IncompatibleError, InterruptedRunError, RunError, UsageError, WeightsError
from lite_bench.harness.runs import RunFolder
from lite_bench.harness.settings import Settings
from lite_bench.harness.step import accumulate_task_gradient
from lite_bench.harness.training import Training, crossed, parameter_groups, trainable
from tests.harness.small import (
    FLAGS,
    Dropping,
    Killed,
    Listener,
    Means,
    Shell,
    dropping,
    prepare,
    small_settings,
    small_suite,
    timeless,
    trained,
)

LITE_BENCH = Path(sys.executable).with_name("lite-bench")
VALIDATED = {"tasks": 7, "validate_every": 3, "checkpoint_seconds": 0.0}


def same_files(a: RunFolder, b: RunFolder) -> bool:
    """Whether weights, optimizer state and progress are the same to the bit."""
    names = [sorted(path.name for path in run.path.glob("checkpoints/*")) for run in (a, b)]
    contents = [[path.read_bytes() for path in sorted(run.path.glob("checkpoints/*"))] for run in (a, b)]
    return names[0] == names[1] and contents[0] == contents[1]


CASES: dict[str, tuple[Settings, Callable[[Settings], Assembly | None]]] = {
    "lite": (small_settings(backbone="conv4+gn", **VALIDATED), lambda _: None),
    "batch statistics": (
        small_settings(params={"batch_statistics": "true"}, gradient="full", **VALIDATED),
        lambda _: None,
    ),
    "two passes": (
        small_settings(learner="simple_cnaps", image_size=32, gradient="exact", tasks=3, tasks_per_step=2),
        lambda _: None,
    ),
    "two rates, epochs": (
        small_settings(
            learner="finetuner",
            params={"pretrain_classes": 3, "batch_statistics": True},
            gradient="full",
            backbone_lr_scale=0.1,
            epoch=3,
            validate_from=4,
            **VALIDATED,
        ),
        lambda _: None,
    ),
    "dropout": (small_settings(**VALIDATED), dropping),
    "dropout, exact": (small_settings(gradient="exact", batch_size=2, **VALIDATED), dropping),
}


@pytest.mark.parametrize("kill_at", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_goes_on_to_the_same_bits(case: str, kill_at: int, tmp_path: Path) -> None:
    settings, make = CASES[case]
    kill_at = min(kill_at, 2 if case == "two passes" else 3)
    whole = trained(settings, tmp_path / "whole", make(settings))
    with pytest.raises(Killed):
        prepare(settings, tmp_path / "cut", listener=Listener(kill_at), assembly=make(settings)).execute()
    listener = Listener()
    training = prepare(settings, tmp_path / "cut", listener=listener, assembly=make(settings))
    assert "Resuming after" in listener.notes[0]
    training.execute()
    assert same_files(training.run, whole)
    assert timeless(training.run) == timeless(whole)
    assert training.run.status()["status"] == "finished"


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    settings = small_settings(backbone="conv4+gn", checkpoint_seconds=3600)
    whole = trained(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        prepare(settings, tmp_path / "cut", listener=Listener(1)).execute()
    run = trained(settings, tmp_path / "cut")
    assert same_files(run, whole)
    assert [line["step"] for line in timeless(run)] == [1, 2]


def test_a_torn_last_line_of_the_metrics_is_dropped(tmp_path: Path) -> None:
    settings = small_settings(checkpoint_seconds=0)
    whole = trained(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        prepare(settings, tmp_path / "cut", listener=Listener(2)).execute()
    metrics = next(tmp_path.glob("cut/*/run/metrics.jsonl"))
    metrics.write_text(metrics.read_text()[:-9])
    assert timeless(trained(settings, tmp_path / "cut")) == timeless(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_whole_steps_only(number: signal.Signals, tmp_path: Path) -> None:
    settings = small_settings(params={"batch_statistics": True}, gradient="full", checkpoint_seconds=3600)
    whole = trained(settings, tmp_path / "whole")

    class Interrupting(Listener):
        def step(self, metrics: Any, total_tasks: int) -> None:
            super().step(metrics, total_tasks)
            if metrics.step == 1:
                signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(InterruptedRunError, match=r"Stopped after 2 of 4 tasks.*train --resume") as stopped:
        prepare(settings, tmp_path / "cut", listener=Interrupting()).execute()
    assert stopped.value.exit_code == 130
    assert signal.getsignal(number) is before
    training = prepare(settings, tmp_path / "cut")
    assert (training.info.tasks, training.run.status()["status"]) == (2, "interrupted")
    training.execute()
    assert same_files(training.run, whole)


def test_an_interruption_while_validating_repeats_the_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(tasks=6, validate_every=4, checkpoint_seconds=0)
    whole = trained(settings, tmp_path / "whole")
    training = prepare(settings, tmp_path / "cut")
    make = training.suite.episode

    def interrupting(task: Task) -> Episode:
        if task.split == "validation":
            os.kill(os.getpid(), signal.SIGINT)
        return make(task)

    monkeypatch.setattr(training.suite, "episode", interrupting)
    with pytest.raises(InterruptedRunError, match="while validating"):
        training.execute()
    run = trained(settings, tmp_path / "cut")
    assert same_files(run, whole)
    assert timeless(run) == timeless(whole)


def test_a_second_interruption_acts_at_once(tmp_path: Path) -> None:
    class Impatient(Listener):
        def step(self, metrics: Any, total_tasks: int) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    training = prepare(small_settings(), tmp_path, listener=Impatient())
    with pytest.raises(KeyboardInterrupt):
        training.execute()
    assert training.run.status()["status"] == "interrupted"


def wait_for(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if path.is_file() and path.read_text().count("\n") >= lines:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    pytest.fail(f"{path} never had {lines} lines")


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [str(LITE_BENCH), "train", "protonets", *FLAGS, "--run-name", "run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_control_c_leaves_a_usable_folder(shell: Shell) -> None:
    metrics = Path("runs/protonets-conv4-28/run/metrics.jsonl")
    with started("--tasks", "2000", "--tasks-per-step", "2") as process:
        wait_for(metrics, 1, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Go on with: lite-bench train --resume runs/protonets-conv4-28/run" in err
    assert "Traceback" not in err
    run = RunFolder(metrics.parent)
    done = read_info(run.checkpoint("last")).tasks
    assert 0 < done < 2000
    run.config.write_text(run.config.read_text().replace("tasks = 2000", f"tasks = {done + 2}"))
    shell("train", "--resume", run.path)
    assert [line["tasks"] for line in timeless(run)] == list(range(2, done + 3, 2))


@pytest.mark.slow
def test_kill_minus_nine_at_any_instant(shell: Shell, tmp_path: Path) -> None:
    arguments = ["--tasks", "40", "--tasks-per-step", "2", "--validate-every", "10", "--validation-tasks", "1"]
    Path("settings.toml").write_text("checkpoint_seconds = 0.0\n")
    run = RunFolder(Path("runs/protonets-conv4-28/run"))
    with started(*arguments, "--config", "settings.toml") as process:
        wait_for(run.metrics, 5, process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    shell("train", "--resume", run.path)
    whole = RunFolder(Path("runs/protonets-conv4-28/whole"))
    arguments += ["--config", "settings.toml", "--run-name", "whole"]
    shell("train", "protonets", *FLAGS, *arguments)
    assert same_files(run, whole)
    assert timeless(run) == timeless(whole)


def gradients(training: Training) -> list[Tensor]:
    return [p.grad.clone() for p in training.module.parameters() if p.grad is not None]


def task_gradients(settings: Settings, indices: list[int]) -> list[Tensor]:
    """The mean gradient of training tasks at the initial weights, one by one."""
    assembly, suite = assemble(settings, 28), small_suite(settings)
    module = assembly.module.train()
    for index in indices:
        episode = suite.episode(suite.train_task(index, settings.seed))
        generator = torch.Generator().manual_seed(stable_key("gradient", settings.seed, index))
        with seeded("task", settings.seed, index):
            accumulate_task_gradient(
                assembly.learner, episode, assembly.estimator, settings.batch_size, generator, assembly.device
            )
    return [p.grad / len(indices) for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_step_takes_the_mean_gradient_of_its_tasks(tasks: int, tmp_path: Path) -> None:
    settings = small_settings(tasks=tasks, tasks_per_step=3)
    training = prepare(settings, tmp_path)
    training.execute()
    for found, expected in zip(gradients(training), task_gradients(settings, list(range(tasks))), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_short_step_at_the_end_of_an_epoch_is_divided_like_the_others(tmp_path: Path) -> None:
    training = prepare(small_settings(tasks=2, tasks_per_step=3, epoch=2), tmp_path)
    training.execute()
    for found, expected in zip(gradients(training), task_gradients(training.settings, [0, 1]), strict=True):
        torch.testing.assert_close(found, expected * 2 / 3)


def test_a_step_ends_with_its_epoch(tmp_path: Path) -> None:
    listener = Listener()
    prepare(small_settings(tasks=11, tasks_per_step=3, epoch=5), tmp_path, listener=listener).execute()
    assert [m.tasks for m in listener.steps] == [3, 5, 8, 10, 11]


def test_the_steps_of_the_published_orbit_runs(tmp_path: Path) -> None:
    """ORBIT: 2,200 tasks of an epoch make 138 steps, the last of 8 tasks; 1,380 in all."""
    training = prepare(small_settings(tasks=22_000, tasks_per_step=16, epoch=2200), tmp_path)
    steps = []
    while training.info.tasks < 22_000:
        steps.append(training.tasks_of_step())
        training.info = replace(training.info, tasks=training.info.tasks + steps[-1])
    assert steps == ([16] * 137 + [8]) * 10


def test_validation_starts_late(tmp_path: Path) -> None:
    settings = small_settings(tasks=10, validate_every=2, validate_from=5)
    run = trained(settings, tmp_path)
    assert [line["tasks"] for line in timeless(run) if line["validation"] is not None] == [6, 8, 10]


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_the_backbone_learns_at_its_own_rate(scale: float, tmp_path: Path) -> None:
    """The first step of Adam moves every weight that has a gradient by its learning rate."""
    listener = Listener()
    settings = small_settings(
        learner="finetuner", params={"pretrain_classes": 3}, gradient="full", tasks=2, lr=0.01, backbone_lr_scale=scale
    )
    training = prepare(settings, tmp_path, listener=listener)
    before = {name: p.detach().clone() for name, p in training.module.named_parameters()}
    training.execute()
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in training.module.named_parameters()}
    assert {name.partition(".")[0] for name in moved} == {"backbone", "head"}
    for name, distance in moved.items():
        assert distance == pytest.approx(0.01 * (scale if name.startswith("backbone") else 1), rel=0.01), name
    assert [m.lr for m in listener.steps] == [0.01]


def test_a_learner_that_is_all_backbone_has_one_group_and_reports_the_rate_before_its_factor(tmp_path: Path) -> None:
    listener = Listener()
    settings = small_settings(lr=0.01, backbone_lr_scale=0.1, lr_decay_every=2)
    training = prepare(settings, tmp_path, listener=listener)
    training.execute()
    (group,) = training.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.0005)
    assert [m.lr for m in listener.steps] == [0.01, 0.005]


def test_at_one_rate_the_optimizer_is_as_in_earlier_checkpoints(tmp_path: Path) -> None:
    """One group of all parameters in the order of the module, without entries of ours."""
    training = prepare(small_settings(learner="cnaps", image_size=32), tmp_path)
    (group,) = training.optimizer.param_groups
    plain = torch.optim.Adam(trainable(training.module, "cnaps"), lr=1e-3)
    assert group.keys() == plain.param_groups[0].keys()
    assert [id(p) for p in group["params"]] == [id(p) for p in plain.param_groups[0]["params"]]


def test_the_rates_of_a_frozen_backbone_and_of_an_unknown_one() -> None:
    assembly = assemble(small_settings(learner="cnaps", image_size=32), 32)
    whole = trainable(assembly.module, "cnaps")
    (frozen,) = parameter_groups(assembly.module, assembly.backbone, 0.1, "cnaps")
    assert (frozen["lr_scale"], [id(p) for p in frozen["params"]]) == (1.0, [id(p) for p in whole])
    assert parameter_groups(assembly.module, None, 0.1, "cnaps") == [{"params": whole}]


def test_the_last_step_takes_the_tasks_that_are_left(tmp_path: Path) -> None:
    listener = Listener()
    prepare(small_settings(tasks=5, tasks_per_step=2), tmp_path, listener=listener).execute()
    assert [(m.step, m.tasks) for m in listener.steps] == [(1, 2), (2, 4), (3, 5)]


def test_the_learning_rate_halves(tmp_path: Path) -> None:
    listener = Listener()
    settings = small_settings(tasks=5, tasks_per_step=1, lr=0.01, lr_decay_every=2)
    prepare(settings, tmp_path, listener=listener).execute()
    assert [m.lr for m in listener.steps] == [0.01, 0.01, 0.005, 0.005, 0.0025]


def test_the_learning_rate_falls_by_any_factor_or_linearly_to_zero(tmp_path: Path) -> None:
    listener = Listener()
    rates = {"lr": 0.01, "lr_decay": 0.1, "lr_decay_every": 2, "lr_linear": True}
    prepare(small_settings(tasks=4, tasks_per_step=1, **rates), tmp_path, listener=listener).execute()
    assert [m.lr for m in listener.steps] == pytest.approx([0.01, 0.0075, 0.0005, 0.00025])


def test_plain_gradient_descent_moves_by_rate_times_gradient_and_resumes(tmp_path: Path) -> None:
    training = prepare(small_settings(tasks=2, tasks_per_step=1, optimizer="sgd", lr=0.5), tmp_path / "whole")
    before = [p.detach().clone() for p in training.module.parameters()]
    moves = []

    def note(optimizer: Any, *_: Any) -> None:
        now = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        moves.append(all(torch.equal(n, b - 0.5 * g) for n, b, g in zip(now, before, gradients, strict=True)))
        before[:] = now

    training.optimizer.register_step_post_hook(note)
    training.execute()
    assert moves == [True, True]
    again = prepare(small_settings(tasks=2, tasks_per_step=1, optimizer="sgd", lr=0.5), tmp_path / "whole")
    assert again.info.tasks == 2
    assert all(map(torch.equal, again.module.parameters(), training.module.parameters()))
    with pytest.raises(WeightsError, match="another optimizer"):
        prepare(small_settings(tasks=2, tasks_per_step=1, lr=0.5), tmp_path / "whole")


@pytest.mark.parametrize(
    ("learner", "lr", "expected"), [("fomaml", None, 1e-6), ("fomaml", 0.1, 0.1), ("protonets", None, 1e-3)]
)
def test_a_learner_may_bring_its_own_learning_rate(
    learner: str, lr: float | None, expected: float, tmp_path: Path
) -> None:
    listener = Listener()
    prepare(small_settings(learner=learner, lr=lr, tasks=1), tmp_path, listener=listener).execute()
    assert [m.lr for m in listener.steps] == [expected]


def test_validation_keeps_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepare(small_settings(tasks=6, validate_every=2), tmp_path)
    accuracies = iter([0.4, 0.6, 0.5])

    class Fixed:
        mean = 0.0

        def __init__(self, values: list[float]) -> None:
            assert len(values) == training.settings.validation_tasks
            self.mean = next(accuracies)

    monkeypatch.setattr("lite_bench.harness.training.estimate", Fixed)
    source = next(iter(small_suite().tasks("validation")))
    monkeypatch.setattr(training.suite, "tasks", lambda split: {source: small_suite().tasks(split)[source]})
    training.execute()
    best, last = (read_info(training.run.checkpoint(kind)) for kind in ("best", "last"))
    assert (best.tasks, best.best_accuracy, best.groups) == (4, 0.6, [])
    assert (last.tasks, last.best_accuracy) == (6, 0.6)
    assert [line["validation"] for line in timeless(training.run)] == [0.4, 0.6, 0.5]
    assert training.run.chosen_checkpoint() == training.run.checkpoint("best")
    assert training.module.training


def test_a_suite_without_validation_tasks_is_not_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepare(small_settings(tasks=2, validate_every=1), tmp_path)

    def none(split: Split) -> dict[str, list[Task]]:
        return {}

    monkeypatch.setattr(training.suite, "tasks", none)
    training.execute()
    assert training.run.chosen_checkpoint() == training.run.checkpoint("last")


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    weights = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)  # what ran before must not matter
        _, tensors = read_checkpoint(trained(small_settings(seed=seed), tmp_path / place).checkpoint("last"))
        weights.append({key: value for key, value in tensors.items() if key.startswith("model.") and value.ndim == 4})
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not any(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_global_randomness_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    trained(small_settings(), tmp_path)
    assert torch.equal(torch.rand(4), expected)


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_are_spoiled(tmp_path: Path) -> None:
    training = prepare(small_settings(lr=1e30, checkpoint_seconds=0), tmp_path)
    with pytest.raises(RunError, match=r"not finite at step 2 .*lower --lr \(now 1e\+30\).*holds finite weights"):
        training.execute()
    assert training.run.status()["status"] == "failed"
    _, tensors = read_checkpoint(training.run.checkpoint("last"))
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


class Cliff(Dropping):
    """A finite loss with an infinite slope."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = torch.nn.Parameter(torch.zeros(()))

    def classify(self, state: Means, images: Tensor) -> Tensor:
        logits = super().classify(state, images)
        return logits + torch.arange(logits.shape[1]) * self.edge.abs().sqrt()


def with_learner(settings: Settings, learner: Dropping) -> Assembly:
    plain = dropping(settings)
    return Assembly(learner, learner, plain.estimator, plain.device)


def test_a_gradient_that_is_not_finite_stops_the_run_too(tmp_path: Path) -> None:
    settings = small_settings()
    training = prepare(settings, tmp_path, assembly=with_learner(settings, Cliff()))
    with pytest.raises(RunError, match=r"The gradient is not finite at step 1.*No checkpoint was written yet"):
        training.execute()
    assert not training.run.checkpoint("last").exists()


def test_other_errors_of_a_learner_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    class Broken(Dropping):
        def classify(self, state: Means, images: Tensor) -> Tensor:
            raise RuntimeError("shapes")

    settings = small_settings()
    training = prepare(settings, tmp_path, assembly=with_learner(settings, Broken()))
    with pytest.raises(RuntimeError, match="shapes"):
        training.execute()
    assert training.run.status()["status"] == "failed"


def test_nothing_to_train_is_the_users_mistake() -> None:
    module = assemble(small_settings(learner="finetuner"), 28).module
    with pytest.raises(UsageError, match=r"nothing to meta-train.*lite-bench eval finetuner"):
        trainable(module, "finetuner")


def test_training_refuses_an_estimator_that_does_not_fit(tmp_path: Path) -> None:
    training = prepare(small_settings(params={"batch_statistics": True}), tmp_path)
    with pytest.raises(IncompatibleError, match="--gradient lite"):
        training.execute()


def test_notes_name_idle_normalisation_and_its_remedy() -> None:
    def notes(**changes: Any) -> str:
        assembly = assemble(small_settings(**changes), 28)
        assembly.module.train()
        return " ".join(training_notes(assembly))

    assert "4 BatchNorm layers (backbone." in notes()
    assert "+gn" in notes()
    assert notes(backbone="conv4+gn") == ""
    assert notes(params={"batch_statistics": True}, gradient="full") == ""


@pytest.mark.parametrize(
    ("learner", "gradient", "parts"),
    [("cnaps", "lite", "set_encoder"), ("cnaps", "lite-importance", "set_encoder"), ("cnaps", "exact", None),
     ("protonets", "lite", None)],
)  # fmt: skip
def test_without_h_the_parts_left_untrained_are_named(
    learner: str, gradient: str, parts: str | None, tmp_path: Path
) -> None:
    listener = Listener()
    size = {"image_size": 32, "backbone": "conv4+gn"}
    settings = small_settings(learner=learner, gradient=gradient, lite_h=0, tasks=1, **size)
    prepare(settings, tmp_path, listener=listener).execute()
    notes = [note for note in listener.notes if "--lite-h 0" in note]
    assert [note.rpartition(": ")[2] for note in notes] == ([] if parts is None else [f"{parts}."])


@pytest.mark.parametrize(("gradient", "noted"), [("lite", True), ("exact", False), ("full", False)])
def test_h_beyond_the_support_set_is_noted(gradient: str, noted: bool, tmp_path: Path) -> None:
    listener = Listener()
    settings = small_settings(lite_h=40, gradient=gradient, tasks=2)
    prepare(settings, tmp_path, listener=listener).execute()
    assert any("--lite-h 40 covers all 6 support images" in note for note in listener.notes) == noted


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["fsync", "write"])
def test_a_full_disk_loses_nothing(name: str, tmp_path: Path) -> None:
    settings = small_settings(backbone="conv4+gn", tasks=6, checkpoint_seconds=0)
    whole = trained(settings, tmp_path / "whole")

    class Filling(Listener):
        def step(self, metrics: Any, total_tasks: int) -> None:
            if metrics.step == 2:
                disk.setattr(os, name, no_space)

    training = prepare(settings, tmp_path / "cut", listener=(listener := Filling()))
    with (
        pytest.MonkeyPatch.context() as disk,
        pytest.raises(RunError, match="The disk is full") as failed,
    ):
        training.execute()
    assert failed.value.exit_code == 1
    assert "train --resume" in listener.notes[-1]
    assert not list(training.run.path.rglob("*.tmp"))
    run = trained(settings, tmp_path / "cut")
    assert same_files(run, whole)
    assert timeless(run) == timeless(whole)


def test_multiples_are_crossed_once() -> None:
    assert [n for n in range(1, 20) if crossed(n - 1, n, 5)] == [5, 10, 15]
    assert crossed(4, 12, 5)
    assert not crossed(5, 9, 5)


def test_the_status_of_a_run_is_plain_json(tmp_path: Path) -> None:
    run = trained(small_settings(), tmp_path)
    status = json.loads((run.path / "run.json").read_text())
    assert (status["kind"], status["status"], status["tasks"], status["step"]) == ("train", "finished", 4, 2)


def test_the_last_validation_may_be_left_out(tmp_path: Path) -> None:
    training = prepare(small_settings(tasks=6, validate_every=2, validate_at_end=False), tmp_path)
    training.execute()
    assert [line["validation"] is None for line in timeless(training.run)] == [False, False, True]


def test_a_suite_may_choose_the_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepare(small_settings(tasks=6, validate_every=2), tmp_path)
    sources = list(training.suite.tasks("validation"))
    asked: list[tuple[dict[str, float], dict[str, float] | None]] = []

    def improves(candidate: dict[str, float], incumbent: dict[str, float] | None) -> bool:
        assert list(candidate) == sources
        asked.append((candidate, incumbent))
        return len(asked) != 2

    monkeypatch.setattr(training.suite, "improves", improves, raising=False)
    training.execute()
    (first, before), (_, second), (third, still) = asked
    assert before is None
    assert second == still == first  # the second model was refused, so the third is compared with the first
    assert read_info(training.run.checkpoint("best")).best_by_source == third
    assert read_info(training.run.checkpoint("best")).tasks == 6
