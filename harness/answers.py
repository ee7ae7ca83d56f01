"""One task of an evaluation: adapt to its support set, classify its queries, and time both.

Times are wall times between synchronisations with the device. Reading data and copying it to the device are outside
them, and nothing is counted or measured within.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lite_bench.harness.assembly import seeded
from lite_bench.harness.clips import ItemEncode, classify, feature_learner, items_at_once, started_task
from lite_bench.harness.core import Episode, Estimator, FeatureLearner, Learner, Support
from lite_bench.harness.errors import DivergedError
from lite_bench.harness.measurement.stopwatch import Stopwatch
from lite_bench.harness.scoring import Score, score_groups
from lite_bench.harness.step import Context, move_support, query_batches
from lite_bench.harness.windows import MovingMean

ADAPT, CLASSIFY = "adapt", "classify"
WARM_UP_CLASSES = 5
FAILURES = (DivergedError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]  # torch exports it without saying so
"""What makes a task fail and lets the run go on."""

Answers = tuple[Tensor, Tensor, Tensor | None]
"""Logits [M, C] or features [M, D] of a batch of queries, its labels int64 [M], and the groups' numbers or None."""


@dataclass
class SharedFeatures:
    """Query features that the next task may use again: the last ones of a learner whose features are task-free.

    Attributes:
        query_id: the query set they are of, or empty.
        batches: features [M, D], already averaged over their windows, labels and groups.
        seconds: what it took to compute them; each task that uses them counts it as its own.
    """

    query_id: str = ""
    batches: list[Answers] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Setting:
    """How tasks are run.

    Attributes:
        learner: in evaluation mode, on ``device``.
        encoder: any estimator: without gradients all run the same chunked forward.
        batch_size: queries at a time.
        device: where to run.
        precision: context of the networks.
    """

    learner: Learner
    encoder: Estimator
    batch_size: int
    device: torch.device
    precision: Context

    def adapt(self, support: Support) -> Any:
        """Adapt to a support set that is on the device; gives the state."""
        with started_task(self.encoder, support, torch.Generator()) as draw, self.precision():
            return self.learner.adapt(support, ItemEncode(draw.encode()))

    def classify(self, state: Any, images: Tensor) -> Tensor:
        """Compute logits of query items that are on the device."""
        with self.precision():
            return classify(self.learner, state, images)


@torch.no_grad()
def score_task(setting: Setting, episode: Episode, shared: SharedFeatures | None = None) -> Score:
    """Adapt to one task and classify its queries; a task whose values are not finite has failed.

    Args:
        setting: how to run it.
        episode: the task.
        shared: query features of the task before, and then of this one, where they do not depend on the task.
    """
    device, watch = setting.device, Stopwatch(setting.device)
    support = move_support(episode.support, device)
    correct = n_query = 0
    seen = []
    try:
        with watch(ADAPT):
            state = setting.adapt(support)
        for logits, labels, groups in _answers(setting, state, episode, watch, shared):
            with watch(CLASSIFY):
                predicted = logits.argmax(1).cpu()
            if not bool(logits.isfinite().all()):
                return _failed(episode, watch, "Its logits are not finite.")
            correct += int((predicted == labels).sum())
            n_query += len(labels)
            if episode.groups and groups is not None:
                seen.append((predicted.tolist(), labels.tolist(), groups.tolist()))
    except FAILURES as error:
        return _failed(episode, watch, " ".join(str(error).split()))
    classified = watch.seconds[CLASSIFY]
    return Score(correct, n_query, watch.seconds[ADAPT], classified, *score_groups(episode.groups, seen))


def _failed(episode: Episode, watch: Stopwatch, reason: str) -> Score:
    return Score(0, episode.n_query, watch.seconds[ADAPT], watch.seconds[CLASSIFY], failed=reason)


def _answers(
    setting: Setting, state: Any, episode: Episode, watch: Stopwatch, shared: SharedFeatures | None
) -> Iterator[Answers]:
    """Classify queries batch by batch."""
    if episode.window > 1 or (shared is not None and episode.query_id):
        yield from _answers_from_features(setting, state, episode, watch, shared)
        return
    for batch in query_batches(episode.query, setting.batch_size):
        images = batch.images.to(setting.device)
        with watch(CLASSIFY), setting.precision():
            logits = setting.learner.classify(state, images)
        yield logits, batch.labels, batch.groups


def _answers_from_features(
    setting: Setting, state: Any, episode: Episode, watch: Stopwatch, shared: SharedFeatures | None
) -> Iterator[Answers]:
    """Classify queries from the mean of the features of their windows; each image goes through the network once."""
    own = feature_learner(setting.learner)
    if shared is None or not episode.query_id:
        batches: Iterable[Answers] = _query_features(own, setting, state, episode, watch)
    elif shared.query_id == episode.query_id:
        batches = shared.batches
        watch.seconds[CLASSIFY] += shared.seconds
    else:
        shared.query_id, shared.batches = "", []  # frees the earlier ones; a task that memory ran out in leaves none
        batches = list(_query_features(own, setting, state, episode, watch))
        shared.query_id, shared.batches, shared.seconds = episode.query_id, batches, watch.seconds[CLASSIFY]
    for features, labels, groups in batches:
        for start in range(0, len(labels), setting.batch_size):  # shared ones may be of larger batches than now fit
            part = slice(start, start + setting.batch_size)
            with watch(CLASSIFY), setting.precision():
                logits = own.logits(state, features[part])
            yield logits, labels[part], None if groups is None else groups[part]


def _query_features(
    learner: FeatureLearner, setting: Setting, state: Any, episode: Episode, watch: Stopwatch
) -> Iterator[Answers]:
    """Compute the features of queries, averaged over their windows."""
    mean = MovingMean(episode.window)
    for batch in query_batches(episode.query, setting.batch_size):
        images = batch.images.to(setting.device)
        with watch(CLASSIFY):
            with setting.precision():
                features = learner.features(state, images)
            averaged = features if batch.groups is None else mean(features, batch.groups)
        yield averaged, batch.labels, batch.groups


@torch.no_grad()
def warm_up(setting: Setting, support: Support) -> None:
    """Run a small task once, so that what a device and its libraries do on first use is not timed.

    Whatever goes wrong in it is passed over: the task itself will say so.

    Args:
        setting: how to run it.
        support: a support set to take some items of: of a few classes, and on a GPU as many as go through a network at
            once, since kernels are chosen by shape.
    """
    way = min(support.way, WARM_UP_CLASSES)
    most = way if setting.device.type == "cpu" else max(way, items_at_once(support.images, setting.encoder.chunk))
    first = torch.stack([(support.labels == label).int().argmax() for label in range(way)])
    chosen = [*first.tolist(), *((support.labels < way).nonzero().squeeze(1).tolist())]
    rows = torch.tensor(list(dict.fromkeys(chosen))[:most])
    with suppress(Exception), seeded("warm-up"):
        small = move_support(Support(support.images[rows], support.labels[rows], way), setting.device)
        setting.classify(setting.adapt(small), small.images)
