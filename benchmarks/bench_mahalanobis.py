"""The linear algebra of Simple CNAPs by three routes: dense inverses as published, Cholesky factors, and Woodbury.

For features of length D and C classes: the share of it in the multiply-accumulates of adapting to a task (the rest are
the two networks), and the time of the head alone on random features, taken in turns within one process. All three give
the same logits.

    python benchmarks/bench_mahalanobis.py [--features 1280] [--way 50] [--support 250 500 1000 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import nullcontext
from functools import partial
from typing import Any, get_args

import torch
from isolated import table

from lite_bench.harness.answers import Setting
from lite_bench.harness.assembly import assemble
from lite_bench.harness.core import TaskSizes
from lite_bench.harness.measurement.costs import count_task
from lite_bench.harness.measurement.counting import count
from lite_bench.harness.measurement.stopwatch import clock
from lite_bench.harness.settings import validate
from lite_bench.models.mahalanobis import Solver, fit_class_gaussians, mahalanobis_squared

QUERIES = 100
ROUTES: tuple[Any, ...] = tuple(route for route in get_args(Solver) if route != "auto")


def network_macs(sizes: TaskSizes) -> int:
    """Count the two networks of Simple CNAPs with EfficientNet-B0 on images of 224 pixels."""
    options = {"learner": "simple_cnaps", "backbone": "efficientnet_b0", "pretrained": False, "device": "cpu"}
    built = assemble(validate(options), 224)
    built.module.eval()
    counts = count_task(Setting(built.learner, built.estimator, 40, built.device, nullcontext), sizes, 224)
    assert counts.adapt is not None
    return counts.adapt.by_kind["convolution"]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--way", type=int, default=50)
    parser.add_argument("--support", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    rows = []
    for n in given.support:
        generator = torch.Generator().manual_seed(n)
        labels = (torch.arange(n) % given.way).to(device)
        centres = torch.randn(given.way, given.features, generator=generator)
        features = (centres[labels.cpu()] + torch.randn(n, given.features, generator=generator)).to(device)
        queries = torch.randn(QUERIES, given.features, generator=generator).to(device)
        sizes = TaskSizes(tuple(n // given.way + (c < n % given.way) for c in range(given.way)))
        networks = network_macs(sizes)
        seconds: dict[str, list[float]] = {route: [] for route in ROUTES}
        logits = {}
        for number in range(given.rounds + 1):
            for route in ROUTES:
                start = clock(device)
                fitted = fit_class_gaussians(features, labels, given.way, solver=route)
                if number:  # the first round warms up
                    seconds[route].append(clock(device) - start)
                logits[route] = mahalanobis_squared(fitted, queries)
        furthest = max(float((each - logits[ROUTES[0]]).abs().max() / each.abs().max()) for each in logits.values())
        fastest = min(statistics.median(taken) for taken in seconds.values())
        for route in ROUTES:
            fit = count(partial(fit_class_gaussians, features, labels, given.way, solver=route)).macs
            fitted = fit_class_gaussians(features, labels, given.way, solver=route)
            query = count(partial(mahalanobis_squared, fitted, queries)).macs / QUERIES
            took = statistics.median(seconds[route])
            share = fit / (fit + networks)
            cells = [f"{fit / 1e9:.1f}", f"{100 * share:.1f} %", f"{query / 1e6:.0f}"]
            rows.append([str(n), route, *cells, f"{took:.2f}", f"{took / fastest:.1f}", f"{furthest:.0e}"])
    head = ["N", "route", "GMACs to fit", "share of adapting", "MMACs per query", "seconds to fit", "ratio", "apart"]
    print(f"D = {given.features}, {given.way} classes, {device}, {torch.get_num_threads()} threads\n")
    print(table(head, rows))


if __name__ == "__main__":
    main()
