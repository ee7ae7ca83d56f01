"""What adapting to a task costs, from the sizes of its support set: counted without computing, or measured.

Multiply-accumulates depend on the sizes of a task alone, so they are counted once for each, on tensors without values
(`count_hollow`); the task itself runs without any counter. Peak memory on a GPU is a by-product of the task. On a CPU
it takes a run of its own under torch's profiler, which only the largest tasks of a source so far get: they set the
peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lite_bench.harness.answers import Setting
from lite_bench.harness.assembly import seeded
from lite_bench.harness.clips import frames_per_item, per_item
from lite_bench.harness.core import Cost, Episode, Support, TaskSizes
from lite_bench.harness.environment import device_text
from lite_bench.harness.measurement.counting import Count, NotCountableError, count_hollow, hollow
from lite_bench.harness.measurement.peak import live_peak
from lite_bench.harness.measurement.published import NetworkMacs, evaluation_mode, network_counter
from lite_bench.harness.scoring import Score
from lite_bench.harness.step import map_tensors, move_support

LONGEST_SECONDS = 60.0
"""Tasks that take longer on a CPU are not run a second time to measure their memory."""


@dataclass(frozen=True)
class Counts:
    """What adapting to a task and classifying an image take, in multiply-accumulates.

    Attributes:
        adapt: of `adapt`, or None if it could not be counted.
        query: of classifying one image, or None.
        adapted: numbers in the state, or None.
        problem: why something is None, or empty.
    """

    adapt: Count | None
    query: Count | None
    adapted: int | None
    problem: str = ""


def sizes_of(support: Support) -> TaskSizes:
    """Give the sizes of a support set, its classes from the smallest to the largest: their order costs nothing."""
    counts = sorted(support.labels.bincount(minlength=support.way).tolist())
    return TaskSizes(tuple(counts), frames_per_item(support.images))


def shapes_of_images(items: int, frames: int, side: int) -> tuple[int, ...]:
    """Give the shape of images [N, 3, S, S] or, of several frames, clips [N, T, 3, S, S]."""
    return (items, *([frames] if frames > 1 else []), 3, side, side)


@dataclass(frozen=True)
class NetworkCost:
    """What one image takes in a network, found once.

    Attributes:
        macs: multiply-accumulates by kind.
        features: length and type of what comes out.
        uncounted: operations without a rule.
    """

    macs: Mapping[str, int]
    features: tuple[int, torch.dtype]
    uncounted: tuple[str, ...]


@dataclass
class _CountingEncode:
    """An `Encode` without values: networks that are known give features without being run, and are noted.

    Attributes:
        chunk: items at once: all of them, as they take no memory.
        known: what is known of networks.
        calls: networks that were run, with the items they saw.
        skipped: networks that were not, with the number of images they would have seen.
    """

    chunk: int
    known: Mapping[object, NetworkCost]
    calls: list[tuple[Callable[[Tensor], Tensor], Tensor]] = field(default_factory=list)
    skipped: list[tuple[NetworkCost, int]] = field(default_factory=list)

    def __call__(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Encode items to [N, D]."""
        found = self.known.get(key_of(network, images))
        if found is None:
            self.calls.append((network, images))
            return per_item(network, images)
        self.skipped.append((found, len(images) * frames_per_item(images)))
        return hollow((len(images), found.features[0]), found.features[1], images.device)


def key_of(network: object, images: Tensor) -> object:
    """Say what the cost of an image in ``network`` depends on, or give None if that cannot be told.

    That is the module that it is, or is with some arguments fixed, those arguments but for the values of tensors, and
    the kind of image.
    """
    fixed: list[object] = []
    while isinstance(network, partial):
        fixed += [_describe(network.args), _describe(network.keywords)]
        network = network.func
    if not isinstance(network, nn.Module) or None in fixed:
        return None
    return network, network.training, tuple(fixed), images.shape[-3:], images.dtype


def _describe(value: object) -> object:
    """Give something that can be a key, the same for values that lead to the same operations; None if unsure."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, Mapping):
        parts = [(key, _describe(each)) for key, each in value.items()]
        return None if any(part is None for _, part in parts) else ("mapping", *parts)
    if isinstance(value, tuple):
        items = [_describe(each) for each in value]
        return None if None in items else ("tuple", *items)
    return (type(value), value) if isinstance(value, bool | int | float | str) else None


@torch.no_grad()
def count_task(setting: Setting, sizes: TaskSizes, side: int, known: dict[object, NetworkCost] | None = None) -> Counts:
    """Count what a task of some sizes takes, without computing it.

    Args:
        setting: how tasks are run.
        sizes: of the support set.
        side: of the images, in pixels.
        known: what single images take in the networks that `adapt` hands to ``encode``; added to. With it, counting
            another task of the same learner skips them.
    """
    known = {} if known is None else known
    labels = torch.repeat_interleave(torch.arange(sizes.way), torch.tensor(sizes.class_counts)).to(setting.device)
    encode = _CountingEncode(sizes.items, known)
    states: list[Any] = []

    def adapt() -> None:
        images = hollow(shapes_of_images(sizes.items, sizes.frames, side), torch.uint8, setting.device)
        with setting.precision():
            states.append(setting.learner.adapt(Support(images, labels, sizes.way), encode))

    def classify() -> Tensor:
        return setting.classify(states[0], hollow((1, 3, side, side), torch.uint8, setting.device))

    try:
        adapted = count_hollow(adapt)
        for cost, images in encode.skipped:
            adapted += Count({kind: images * macs for kind, macs in cost.macs.items()}, cost.uncounted)
        for network, items in encode.calls:
            _learn(network, items, setting, known)
    except Exception as error:  # a stranger's `adapt` may do anything, and not to know its cost is no failure
        return Counts(None, None, None, _problem("adapt", error))
    try:
        numbers = numbers_in(states[0])
        query = count_hollow(classify)
    except Exception as error:  # likewise
        return Counts(adapted, None, None, _problem("classify", error))
    return Counts(adapted, query, numbers)


def numbers_in(state: Any) -> int:
    """Count the numbers that a task's state consists of."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    map_tensors(state, note)
    return sum(sizes)


def _learn(
    network: Callable[[Tensor], Tensor], items: Tensor, setting: Setting, known: dict[object, NetworkCost]
) -> None:
    """Find out what one image takes in a network, if two take twice as much."""
    key = key_of(network, items)
    if key is None or key in known:
        return
    outputs: list[Tensor] = []

    def run(images: int) -> Callable[[], None]:
        pixels = hollow((images, *items.shape[-3:]), items.dtype, items.device)
        return lambda: outputs.append(network(pixels))

    with suppress(Exception), setting.precision():  # then it is run for every task
        one, two = count_hollow(run(1)), count_hollow(run(2))
        if (one + one).by_kind == two.by_kind:
            known[key] = NetworkCost(one.by_kind, (outputs[1].shape[1], outputs[1].dtype), one.uncounted)


def _problem(what: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{what} ({text if isinstance(error, NotCountableError) else f'{type(error).__name__}: {text}'})"


def published_macs_of(learner: Any, sizes: TaskSizes, network_macs: NetworkMacs) -> tuple[int | None, str]:
    """Count adapting as published tables do; None if the learner does not say how, or with the reason if it fails.

    Args:
        learner: that may have a method ``published_macs``.
        sizes: of the support set.
        network_macs: see `network_counter`.
    """
    own = getattr(learner, "published_macs", None)
    try:
        found = None if own is None else own(sizes, network_macs)
        return None if found is None else int(found), ""
    except Exception as error:  # a stranger's method; not to know a cost is no failure
        return None, _problem("published counting", error)


def costs_of(learner: Any, module: nn.Module, counts: Counts, published: tuple[int | None, str], device: str) -> Cost:
    """Put together what is known of a task without running it."""
    parameters = list(module.parameters())
    named = {name for count in (counts.adapt, counts.query) if count for name in count.uncounted}
    problems = {problem for problem in (counts.problem, published[1]) if problem}
    return Cost(
        passes=passes_of(learner),
        macs=None if counts.adapt is None else counts.adapt.macs,
        macs_per_query=None if counts.query is None else counts.query.macs,
        published_macs=published[0],
        uncounted=tuple(sorted(named | problems)),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        adapted=counts.adapted,
        device=device,
    )


def passes_of(learner: Any) -> str:
    """Say how many passes over the support set a learner takes, or nothing if it does not tell."""
    return str(getattr(learner, "passes", ""))


@dataclass
class CostMeter:
    """Gives the cost of each task of an evaluation.

    Attributes:
        setting: how tasks are run.
        module: the learner as a module.
        side: of the images, in pixels.
        costs: what is known already, by sizes.
        peaks: peak memory measured on a CPU, by sizes.
        largest: images of the largest support set of this source so far.
        networks: what single images take in networks.
    """

    setting: Setting
    module: nn.Module
    side: int
    costs: dict[TaskSizes, Cost] = field(default_factory=dict)
    peaks: dict[TaskSizes, int] = field(default_factory=dict)
    largest: int = 0
    networks: dict[object, NetworkCost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Set up the published counting."""
        self.network_macs = network_counter(self.side)
        self.device = device_text(self.setting.device)

    def next_source(self) -> None:
        """Start on another source."""
        self.largest = 0

    def cost(self, episode: Episode, score: Score) -> Cost:
        """Give the cost of a task that was just run.

        Args:
            episode: the task.
            score: what came of it.
        """
        sizes = sizes_of(episode.support)
        if sizes not in self.costs:
            self.costs[sizes] = self._counted(sizes)
        peak = score.peak_bytes
        if peak is None and score.adapt_seconds + score.classify_seconds < LONGEST_SECONDS:
            peak = self._peak(sizes, episode)
        return replace(self.costs[sizes], peak_bytes=peak)

    def _counted(self, sizes: TaskSizes) -> Cost:
        counts = count_task(self.setting, sizes, self.side, self.networks)
        published = published_macs_of(self.setting.learner, sizes, self.network_macs)
        return costs_of(self.setting.learner, self.module, counts, published, self.device)

    def _peak(self, sizes: TaskSizes, episode: Episode) -> int | None:
        """Measure peak memory on a CPU, if this is the largest task of its source so far."""
        if sizes not in self.peaks and sizes.images > self.largest:
            with suppress(Exception), seeded("peak memory"):  # the task ran; that memory ran out now is no failure
                self.peaks[sizes] = live_peak(lambda: self._run(episode))
        self.largest = max(self.largest, sizes.images)
        return self.peaks.get(sizes)

    @torch.no_grad()
    def _run(self, episode: Episode) -> None:
        """Adapt, and classify a batch: of support images, so that no query is read twice."""
        setting = self.setting
        images = episode.support.images.flatten(0, -4)
        batch = torch.arange(min(setting.batch_size, episode.n_query)) % len(images)
        with evaluation_mode(self.module):
            state = setting.adapt(move_support(episode.support, setting.device))
            setting.classify(state, images[batch].to(setting.device))
