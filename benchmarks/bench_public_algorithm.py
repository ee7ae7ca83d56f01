"""One LITE training task of ours beside the published algorithm on the same task, in one run.

Simple CNAPs, 10-way, float32. The published algorithm runs twice: with torch's default memory layout (as released) and
with the layout our networks use, which tells what the algorithm gains from what the layout gains. Ours runs with the
plain estimator and the default one, and once more with smaller batches, which give the same gradient in less memory.

    python benchmarks/bench_public_algorithm.py [--image-size 224] [--support 100] [--queries 40 200] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from isolated import main, run_cases, table

from lite_bench.harness.assembly import build_backbone
from lite_bench.harness.core import Episode, QueryBatch, Support, Task
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.step import accumulate_task_gradient
from lite_bench.models.simple_cnaps import SimpleCNAPs

WAY, H, BATCH = 10, 40, 40
SMALL_BATCH = 10
OURS = {
    "ours": ("lite", BATCH),
    "ours-importance": ("lite-importance", BATCH),
    "ours-small-batch": ("lite-importance", SMALL_BATCH),
}
CODES = {
    **{code: f"ours, {name}, batches of {batch}" for code, (name, batch) in OURS.items()},
    "public-same-layout": f"published, our layout, batches of {BATCH}",
    "public": f"published, as released, batches of {BATCH}",
}


def prepare(code: str, n_support: int, n_query: int, size: int, backbone: str, device: str) -> Callable[[], None]:
    """Set up one training task."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    learner = SimpleCNAPs(build_backbone(backbone, image_size=size, pretrained=False))  # type: ignore[arg-type]  # a Backbone
    learner.train().to(device)
    images = torch.randint(0, 256, (n_support + n_query, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(n_support + n_query) % WAY
    support, queries, (first, last) = images[:n_support], images[n_support:], torch.split(labels, [n_support, n_query])
    if code in OURS:
        name, batch = OURS[code]
        task = Task("bench@1", "random", "train", 0)
        episode = Episode(task, Support(support, first, WAY), (QueryBatch(queries, last),), n_query)
        estimator = ESTIMATORS.load(name)(H, batch)

        def ours() -> None:
            learner.zero_grad(set_to_none=True)
            accumulate_task_gradient(learner, episode, estimator, batch, torch.Generator().manual_seed(0), device)

        return ours
    from public_algorithm import PublicStep

    if code == "public":
        learner.to(memory_format=torch.contiguous_format)
    step = PublicStep(learner, H, BATCH)

    def public() -> None:
        learner.zero_grad(set_to_none=True)
        step.run(support.to(device), first.to(device), queries.to(device), last.to(device), WAY)

    return public


def report(arguments: argparse.Namespace) -> str:
    """Run all cases and print times, memory and ratios."""
    shape = {"n_support": arguments.support, "size": arguments.image_size, "backbone": arguments.backbone}
    shape["device"] = arguments.device
    cases: list[dict[str, Any]] = [{"code": code, "n_query": m, **shape} for m in arguments.queries for code in CODES]
    results = run_cases(__file__, cases)
    ours = {result["n_query"]: result for result in results if result["code"] == "ours"}
    rows = []
    for result in results:
        base = ours[result["n_query"]]
        ratios = (result["seconds"] / base["seconds"], result["peak_gb"] / base["peak_gb"])
        figures = [f"{result['seconds']:.1f}", f"{result['peak_gb']:.2f}", *(f"{ratio:.2f}" for ratio in ratios)]
        rows.append([result["n_query"], CODES[result["code"]], *figures])
    title = (
        f"Simple CNAPs, {arguments.backbone}, {arguments.image_size} px, {WAY}-way, N = {arguments.support}, H = {H}, "
        f"float32, {arguments.device}, torch {torch.__version__}\n\n"
    )
    return title + table(["M", "code", "seconds", "peak GB", "time / ours", "memory / ours"], rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sizes."""
    parser.add_argument("--support", type=int, default=100)
    parser.add_argument("--queries", type=int, nargs="+", default=[40, 200])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--backbone", default="efficientnet_b0")
    parser.add_argument("--device", default="cpu")


if __name__ == "__main__":
    main(__file__, prepare, report, add_arguments)
