"""FineTuner with its features computed once, beside the body run again at every step as the published costs count it.

Both must predict the same, query by query. Costs are counted as true multiply-accumulates of what runs and as the
published tables count; times are of adapting to the same tasks of random patterns, taken in turns within one process.

    python benchmarks/bench_finetuner.py [--backbone resnet18] [--image-size 84] [--support 100] [--way 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import nullcontext

import torch
from isolated import table

from lite_bench.harness.answers import Setting, warm_up
from lite_bench.harness.assembly import assemble
from lite_bench.harness.core import Support, TaskSizes
from lite_bench.harness.environment import device_text
from lite_bench.harness.measurement.costs import count_task, published_macs_of
from lite_bench.harness.measurement.published import network_counter
from lite_bench.harness.measurement.stopwatch import clock
from lite_bench.harness.settings import validate

QUERIES = 40


def patterns(support: int, way: int, side: int, seed: int) -> tuple[Support, torch.Tensor]:
    """Draw noisy pictures of random class patterns: a support set, and queries."""
    generator = torch.Generator().manual_seed(seed)
    ground = torch.randint(0, 256, (way, 3, side, side), generator=generator)

    def draw(labels: torch.Tensor) -> torch.Tensor:
        noise = torch.randint(0, 256, (len(labels), 3, side, side), generator=generator)
        return ((ground[labels] + 2 * noise) // 3).to(torch.uint8)

    labels = torch.arange(support) % way
    return Support(draw(labels), labels, way), draw(torch.arange(QUERIES) % way)


def setting_of(backbone: str, side: int, device: str, *, recompute: bool) -> Setting:
    options = {"learner": "finetuner", "backbone": backbone, "pretrained": False, "image_size": side, "device": device}
    built = assemble(validate({**options, "params": {"recompute": recompute}}), side)
    built.module.eval()
    built.estimator.chunk = 64
    return Setting(built.learner, built.estimator, 64, built.device, nullcontext)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18+gn", help="+gn normalises without pretrained statistics")
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--support", type=int, default=100)
    parser.add_argument("--way", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    ways = {
        "features once": setting_of(given.backbone, given.image_size, given.device, recompute=False),
        "body at every step": setting_of(given.backbone, given.image_size, given.device, recompute=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    same = 0
    for task in range(given.rounds):
        support, queries = patterns(given.support, given.way, given.image_size, task)
        predicted = []
        for name, setting in ways.items():
            if not task:
                warm_up(setting, support)
            device = setting.device
            moved = Support(support.images.to(device), support.labels.to(device), support.way)
            start = clock(device)
            state = setting.adapt(moved)
            seconds[name].append(clock(device) - start)
            predicted.append(setting.classify(state, queries.to(device)).argmax(1))
        same += int((predicted[0] == predicted[1]).sum())
    if same < QUERIES * given.rounds:
        raise SystemExit(f"Only {same} of {QUERIES * given.rounds} predictions are the same.")
    sizes = TaskSizes(tuple(given.support // given.way + (c < given.support % given.way) for c in range(given.way)))
    rows, first = [], None
    for name, setting in ways.items():
        counts = count_task(setting, sizes, given.image_size)
        assert counts.adapt is not None
        published, _ = published_macs_of(setting.learner, sizes, network_counter(given.image_size))
        took = statistics.median(seconds[name])
        first = first or (counts.adapt.macs, took)
        ratios = counts.adapt.macs / first[0], took / first[1]
        cells = [f"{counts.adapt.macs / 1e9:.2f}", f"{ratios[0]:.1f}", f"{(published or 0) / 1e9:.1f}"]
        rows.append([name, *cells, f"{took:.2f}", f"{ratios[1]:.1f}"])
    head = ["way", "true GMACs", "ratio", "published GMACs", "seconds", "ratio"]
    what = f"{given.support} images of {given.way} classes"
    print(f"{given.backbone}, {given.image_size} pixels, {what}, {device_text(device)}:")
    print(f"all {QUERIES * given.rounds} predictions are the same.\n")
    print(table(head, rows))


if __name__ == "__main__":
    main()
