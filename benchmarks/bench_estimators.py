"""Time and peak memory of one training task, for every gradient estimator and support size.

    python benchmarks/bench_estimators.py [--support 100 400 1000] [--learner simple_cnaps] [--data FOLDER]

Memory is the peak of a process of its own above what it held before the step, images excluded. Estimators whose memory
grows with the support set are stopped where a straight line through their last two sizes leaves the machine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from isolated import main, run_cases, table

from lite_bench.harness.assembly import build_estimator, build_learner
from lite_bench.harness.core import Episode, QueryBatch, Support, Task
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.settings import validate
from lite_bench.harness.step import accumulate_task_gradient

WAY, N_QUERY, H, BATCH = 10, 40, 40, 10
GROWING = ("full",)
SHARE_OF_MEMORY = 0.8


def prepare(
    estimator: str, n_support: int, learner: str, backbone: str, size: int, batch: int, data: str | None
) -> Callable[[], None]:
    """Set up one training task."""
    names: dict[str, Any] = {"learner": learner, "backbone": backbone, "pretrained": False}
    settings = validate({**names, "gradient": estimator, "lite_h": H, "batch_size": batch})
    built, module = build_learner(settings, size)
    module.train()
    n = n_support + N_QUERY
    images = photographs(Path(data), n, size) if data else torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(n) % WAY
    support = Support(images[:n_support], labels[:n_support], WAY)
    query = (QueryBatch(images[n_support:], labels[n_support:]),)
    episode = Episode(Task("bench@1", "images", "train", 0), support, query, N_QUERY)
    chosen = build_estimator(settings)

    def step() -> None:
        accumulate_task_gradient(built, episode, chosen, batch, torch.Generator().manual_seed(0))

    return step


def photographs(folder: Path, n: int, size: int) -> torch.Tensor:
    """Read ``n`` photographs, class by class, as uint8 [n, 3, size, size]."""
    from lite_bench.datasets.images import read_image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    spread = [paths[i * len(paths) // n] for i in range(n)]
    return torch.stack([torch.tensor(read_image(path, size)).permute(2, 0, 1) for path in spread])


def report(arguments: argparse.Namespace) -> str:
    """Run all cases that fit and print one row each."""
    shape = {"learner": arguments.learner, "backbone": arguments.backbone, "size": arguments.image_size}
    shape |= {"batch": arguments.batch_size, "data": arguments.data}
    results: list[dict[str, Any]] = []
    for name in arguments.estimators or ESTIMATORS.names():
        own: list[dict[str, Any]] = []
        for n in sorted({*arguments.support, *(arguments.small if name in GROWING else ())}):
            case = {"estimator": name, "n_support": n, **shape}
            if name in GROWING and predicted_gb(own, n) > SHARE_OF_MEMORY * machine_gb():
                own.append({**case, "failed": f"would need about {predicted_gb(own, n):.0f} GB"})
            else:
                own += run_cases(__file__, [case])
        results += own
    rows = [
        [r["estimator"], r["n_support"], r["failed"], "", ""]
        if "failed" in r
        else [r["estimator"], r["n_support"], f"{r['seconds']:.1f}", f"{r['peak_gb']:.2f}", growth(results, r)]
        for r in results
    ]
    title = (
        f"{arguments.learner}, {arguments.backbone}, {arguments.image_size} px, {WAY}-way, M = {N_QUERY}, H = {H}, "
        f"batches of {arguments.batch_size}, float32, {torch.get_num_threads()} threads, torch {torch.__version__}\n\n"
    )
    return title + table(["estimator", "N", "seconds", "peak GB", "memory / smallest N"], rows)


def growth(results: list[dict[str, Any]], result: dict[str, Any]) -> str:
    """Compare peak memory with the same estimator's first size."""
    first = next(r for r in results if r["estimator"] == result["estimator"])
    return f"{result['peak_gb'] / first['peak_gb']:.2f}" if "peak_gb" in first else ""


def predicted_gb(own: list[dict[str, Any]], n: int) -> float:
    """Extend a straight line through the last two measured sizes to ``n``."""
    measured = [r for r in own if "peak_gb" in r][-2:]
    if len(measured) < 2:
        return 0.0
    (n0, m0), (n1, m1) = ((r["n_support"], r["peak_gb"]) for r in measured)
    return float(m1 + (m1 - m0) / (n1 - n0) * (n - n1))


def machine_gb() -> float:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sizes."""
    parser.add_argument("--support", type=int, nargs="+", default=[100, 400, 1000])
    parser.add_argument("--small", type=int, nargs="*", default=[25, 50], help="more sizes for the growing ones")
    parser.add_argument("--estimators", nargs="*", help="default: all")
    parser.add_argument("--learner", default="simple_cnaps")
    parser.add_argument("--backbone", default="efficientnet_b0")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--data", help="folder of photographs to use instead of random pixels")


if __name__ == "__main__":
    main(__file__, prepare, report, add_arguments)
