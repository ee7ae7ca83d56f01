"""What holds on a GPU only, or has to hold there too: real sizes, real limits, real lack of memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lite_bench.harness.assembly import assemble, limit_memory
from lite_bench.harness.checkpoints import read_checkpoint
from lite_bench.harness.core import Episode, TaskSizes
from lite_bench.harness.evaluation import Evaluation, evaluate
from lite_bench.harness.measurement.counting import count
from lite_bench.harness.measurement.peak import measure_peak
from lite_bench.harness.measurement.planning import choose_sizes
from lite_bench.harness.measurement.profiling import Profiler
from lite_bench.harness.measurement.trials import Trial
from lite_bench.harness.memory import BatchSizes, release_memory
from lite_bench.harness.options import option_parameters
from lite_bench.harness.records import read_records, records_path
from lite_bench.harness.registry import ESTIMATORS, LEARNERS
from lite_bench.harness.step import accumulate_task_gradient
from lite_bench.models.encoding import ExactEncode, encode_in_chunks
from tests.harness.small import Listener, prepare, small_settings, small_suite, trained
from tests.models.toys import build, tiny_episode

pytestmark = pytest.mark.gpu
PAPERS_GPU = 16 * 10**9
MODEL = {"backbone": "efficientnet_b0", "pretrained": False, "image_size": 224, "device": "cuda"}


@pytest.fixture(autouse=True)
def _unlimited() -> Iterator[None]:
    """Give every test the whole card, and leave it so."""
    yield
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)


def subject(learner: str, **changes: Any) -> Profiler:
    settings = small_settings(learner=learner, **{**MODEL, **changes})
    side = settings.image_size or 0
    return Profiler(assemble(settings, side), side, way=10, n_query=40, sizes=BatchSizes(40, 40))


def gradient(profiler: Profiler, episode: Episode, name: str, h: int, chunk: int, batch: int = 40) -> Tensor:
    module = profiler.module
    module.zero_grad(set_to_none=True)
    estimator = ESTIMATORS.load(name)(h, chunk)
    generator = torch.Generator().manual_seed(0)
    accumulate_task_gradient(
        profiler.assembly.learner, episode, estimator, batch, generator, profiler.device, profiler.context
    )
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("learner", ["protonets", "cnaps", "simple_cnaps"])
def test_exact_with_1000_large_images_fits_the_papers_gpu(learner: str) -> None:
    profiler = subject(learner)
    limit_memory(profiler.device, PAPERS_GPU)
    episode = profiler.episode(1000, 40)
    peak = measure_peak(lambda: gradient(profiler, episode, "exact", 0, 40), profiler.device)
    print(f"{learner}: {peak.tensors / 1e9:.2f} GB of tensors, {peak.reserved / 1e9:.2f} GB taken")
    assert peak.reserved < 0.6 * PAPERS_GPU


@pytest.mark.parametrize("learner", ["protonets", "cnaps", "simple_cnaps"])
def test_exact_equals_full_where_full_fits(learner: str) -> None:
    profiler = subject(learner, backbone="efficientnet_b0+gn")
    episode = profiler.episode(100, 40)
    full = gradient(profiler, episode, "full", 0, 100)
    found = relative(gradient(profiler, episode, "exact", 0, 16, batch=10), full)
    print(f"{learner}: exact against full {found:.1e}")
    assert found < 2e-5  # two orders of summation in float32; 0.5 to 1.1e-5 seen on an H200


@pytest.mark.parametrize("name", ["lite", "lite-stratified", "lite-importance", "lite-code", "subsample", "exact"])
def test_the_gpu_gives_the_gradient_of_the_cpu(name: str) -> None:
    gpu, cpu = (subject("cnaps", backbone="conv4+gn", image_size=32, device=device) for device in ("cuda", "cpu"))
    episode = gpu.episode(40, 20)
    assert relative(gradient(gpu, episode, name, 12, 7).cpu(), gradient(cpu, episode, name, 12, 7)) < 1e-4


@pytest.mark.parametrize("autocast", [False, True])
def test_dropout_and_stochastic_depth_replay_in_recomputed_chunks(autocast: bool) -> None:
    import timm

    torch.manual_seed(0)
    options = {"drop_rate": 0.3, "drop_path_rate": 0.5, "pretrained": False}
    network = timm.create_model("efficientnet_b0", num_classes=10, **options).cuda().train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images = torch.randn(10, 3, 64, 64, device="cuda")

    def run(encode: Any) -> list[Tensor]:
        torch.manual_seed(9)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            features = encode(network, images)
        torch.manual_seed(1000)  # a recomputation that did not restore the state would now draw other masks
        return [features, *torch.autograd.grad(features.float().square().sum(), list(network.parameters()))]

    torch.backends.cudnn.deterministic = True
    try:
        exact = run(ExactEncode(4))
        plain = run(lambda net, x: encode_in_chunks(net, x, 4))
        assert all(torch.equal(a, b) for a, b in zip(exact, plain, strict=True))
    finally:
        torch.backends.cudnn.deterministic = False


def test_importance_draws_ahead_for_networks_that_draw_at_random() -> None:
    from tests.harness.small import Dropping

    learner = Dropping().cuda().train()
    estimator = ESTIMATORS.load("lite-importance")(3, 4)
    episode = tiny_episode(n=12, way=3, m=6, side=28)
    accumulate_task_gradient(learner, episode, estimator, 6, torch.Generator().manual_seed(0), "cuda")
    assert estimator.random_passes == {0}


def test_bfloat16_networks_give_nearly_the_gradient_of_float32() -> None:
    for learner in ("protonets", "simple_cnaps"):
        profilers = [subject(learner, backbone="efficientnet_b0+gn", precision=p) for p in ("fp32", "bf16")]
        profilers[1].module.load_state_dict(profilers[0].module.state_dict())
        profilers[1] = Profiler(profilers[1].assembly, 224, 10, 40, BatchSizes(40, 40), "bf16")
        episode = profilers[0].episode(50, 40)
        a, b = (gradient(profiler, episode, "exact", 0, 40).double() for profiler in profilers)
        cosine = float(a @ b / (a.norm() * b.norm()))
        print(f"{learner}: cosine of the bf16 gradient {cosine:.4f}")
        assert cosine > 0.9


def test_memory_that_really_runs_out_halves_the_batches(tmp_path: Path) -> None:
    changes = {"backbone": "resnet18+gn", "image_size": 128, "device": "cuda", "gradient": "exact"}
    changes |= {"suite_options": {"way": 10, "shot": 10, "query": 10}, "tasks": 2, "tasks_per_step": 1, "lr": 1e-5}
    whole = trained(small_settings(batch_size=100, **changes), tmp_path / "whole")
    # Torch gives back whole segments of the card only: one that a live tensor was cut from stays taken, and tensors of
    # up to 1 MiB cannot use the rest of it. So what filled the card before there was a limit has to be gone first: the
    # weights and Adam's state of the whole run alone can hold segments of more than the limit.
    release_memory()
    listener = Listener()
    tight = prepare(small_settings(batch_size=100, **changes), tmp_path / "tight", listener=listener)
    # Beside the weights, gradients, Adam's state and scratch take about 0.25 GB, and a graph of 100 images over 0.7 GB.
    limit_memory(torch.device("cuda"), torch.cuda.memory_allocated() + 600 * 10**6)
    tight.execute()
    notes = [note for note in listener.notes if "Memory ran out" in note]
    print(*notes, sep="\n")
    assert notes
    a, b = (read_checkpoint(run.checkpoint("last"))[1] for run in (tight.run, whole))
    weights = [name for name in b if name.startswith("model.")]
    # Adam's first steps are signs: where a gradient is all rounding, so is the sign of the step of 1e-5.
    assert all(torch.allclose(a[name], b[name], atol=5e-5) for name in weights)


def test_a_planned_budget_is_kept() -> None:
    profiler = subject("simple_cnaps")
    settings = small_settings(learner="simple_cnaps", memory_budget="4GB", lite_h="auto", **MODEL)
    episode = profiler.episode(200, 100)
    plan = choose_sizes(settings, profiler.assembly, [episode], print)
    print(plan)
    assert plan.h > 1
    limit_memory(profiler.device, plan.budget)
    for name in (settings.gradient, "lite"):
        gradient(profiler, episode, name, plan.h, plan.sizes.chunk, plan.sizes.query)


def test_a_learner_moves_to_the_gpu() -> None:
    from lite_bench.models.simple_cnaps import SimpleCNAPs

    learner = build(SimpleCNAPs).float().cuda()
    accumulate_task_gradient(learner, tiny_episode(), ESTIMATORS.load("lite")(2, 4), 4, torch.Generator(), "cuda")


@pytest.mark.parametrize("learner", LEARNERS.names())
def test_costs_are_those_of_the_cpu_with_memory_and_time_of_this_card(learner: str, tmp_path: Path) -> None:
    """Counts do not depend on the device; peak memory comes with every task; hollow counts are those of a real run."""
    options = option_parameters(LEARNERS.load(learner))
    few = {name: 2 for name in ("steps", "test_steps", "train_steps") if name in options}
    found = {}
    for device in ("cpu", "cuda"):
        settings = small_settings(learner=learner, params=few, image_size=32, device=device, limit=1)
        built, suite = assemble(settings, 32), small_suite(settings)
        evaluation = Evaluation(built.learner, built.module, built.estimator, settings, built.device)
        evaluate(evaluation, suite, tmp_path / device)
        source = next(iter(suite.tasks("test")))
        (record,) = read_records(records_path(tmp_path / device, suite.id, source))
        assert record.cost is not None
        assert (record.cost.peak_bytes or 0) > 0
        found[device] = replace(record.cost, peak_bytes=None, device="")
        trial = Trial(evaluation.setting(evaluation.sizes), built.module.eval(), TaskSizes((2, 3)), 32)
        counted = trial.count().adapt
        with torch.no_grad():
            assert counted == count(partial(trial.setting.adapt, trial.support()))
    assert found["cpu"] == found["cuda"]
