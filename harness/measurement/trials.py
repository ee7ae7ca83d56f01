"""What a task of given sizes costs, found by running it on random pixels, whose values play no part in the cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lite_bench.harness.answers import Setting, warm_up
from lite_bench.harness.core import Support, TaskSizes
from lite_bench.harness.cost_statistics import CostSummary, Spread, spread
from lite_bench.harness.environment import device_text
from lite_bench.harness.measurement.costs import (
    Counts,
    costs_of,
    count_task,
    published_macs_of,
    shapes_of_images,
)
from lite_bench.harness.measurement.peak import task_peak
from lite_bench.harness.measurement.published import network_counter
from lite_bench.harness.measurement.stopwatch import clock


@dataclass
class Trial:
    """A learner to try on a task of random pixels.

    Attributes:
        setting: how tasks are run.
        module: the learner as a module, in evaluation mode.
        sizes: of the support set.
        side: of the images, in pixels.
    """

    setting: Setting
    module: nn.Module
    sizes: TaskSizes
    side: int

    def count(self) -> Counts:
        """Count multiply-accumulates, without computing."""
        return count_task(self.setting, self.sizes, self.side)

    def summary(self, counts: Counts, repeats: int) -> CostSummary:
        """Give all costs; times and memory by running the task ``repeats`` times, if that is not 0.

        Raises:
            DivergedError: the task fails.
        """
        published = published_macs_of(self.setting.learner, self.sizes, network_counter(self.side))
        device = device_text(self.setting.device)
        cost = costs_of(self.setting.learner, self.module, counts, published, device)
        adapt, query, peak = self._run(repeats) if repeats else (None, None, None)
        return CostSummary(
            passes=cost.passes,
            macs=cost.macs,
            macs_per_query=cost.macs_per_query,
            published_macs=cost.published_macs,
            uncounted=cost.uncounted,
            adapt_seconds=adapt,
            query_seconds=query,
            devices=(device,),
            parameters=cost.parameters,
            trainable=cost.trainable,
            adapted=cost.adapted,
            peak_bytes=peak,
            measured=int(peak is not None),
        )

    def support(self) -> Support:
        """Make a support set of random pixels, on the device."""
        generator = torch.Generator().manual_seed(0)
        shape = shapes_of_images(self.sizes.items, self.sizes.frames, self.side)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.repeat_interleave(torch.arange(self.sizes.way), torch.tensor(self.sizes.class_counts))
        return Support(images.to(self.setting.device), labels.to(self.setting.device), self.sizes.way)

    @torch.no_grad()
    def _run(self, repeats: int) -> tuple[Spread | None, Spread | None, int]:
        setting, support = self.setting, self.support()
        queries = support.images.flatten(0, -4)[: setting.batch_size]
        warm_up(setting, support)
        adapting, classifying = [], []
        for _ in range(repeats):
            start = clock(setting.device)
            state = setting.adapt(support)
            adapted = clock(setting.device)
            setting.classify(state, queries)
            adapting.append(adapted - start)
            classifying.append((clock(setting.device) - adapted) / len(queries))
            del state
        peak = task_peak(lambda: setting.classify(setting.adapt(support), queries), setting.device)
        return spread(adapting), spread(classifying), peak
