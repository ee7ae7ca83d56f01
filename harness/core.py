"""The nouns of the benchmark: everything else is a detail of one of them.

Frozen dataclasses and Protocols only, so a new learner, suite or estimator needs no base class, and nothing
heavy is imported to name one. Shape letters: N support items, M queries, S image side, C way, D features, T frames.

An item is an image, or a clip: T frames of a video that are recognised together. Networks see frames; the feature of a
clip is the mean of the features of its frames, which `lite_bench.harness.clips` sees to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from lite_bench.harness.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split = Literal["train", "validation", "test"]


def stable_key(*parts: object) -> int:
    """Derive a 63-bit key from ``parts`` that is the same on every machine, Python version and process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, order=True)
class Task:
    """The name of one few-shot problem; hashable, printable, and all that its episode depends on.

    Attributes:
        suite: suite and version, such as ``glyphs@1``.
        source: the data set or group inside the suite; the column its score is reported in.
        split: ``train``, ``validation`` or ``test``.
        index: number of the task within its source and split, from 0.
        seed: the seed of the whole list of tasks; 0 is the list that everybody evaluates on.
    """

    suite: str
    source: str
    split: Split
    index: int
    seed: int = 0

    def __str__(self) -> str:
        """Print as ``suite/source/split/index``, with ``?seed=`` when the seed is not 0."""
        suffix = f"?seed={self.seed}" if self.seed else ""
        return f"{self.suite}/{self.source}/{self.split}/{self.index}{suffix}"

    @classmethod
    def parse(cls, text: str) -> Task:
        """Read a task back from its printed form.

        Raises:
            UsageError: the text is not ``suite/source/split/index``.
        """
        name, _, seed = text.partition("?seed=")
        parts = name.rsplit("/", 2)
        suite, _, source = parts[0].partition("/")
        numbers = parts[-1], (seed or "0").removeprefix("-")
        if len(parts) != 3 or not source or parts[1] not in get_args(Split) or not all(map(str.isdecimal, numbers)):
            raise UsageError(f"{text!r} does not name a task; write it as suite@version/source/split/index")
        split: Any = parts[1]
        return cls(suite, source, split, int(parts[2]), int(seed or 0))

    def key(self, purpose: str = "") -> int:
        """Give the 63-bit key from which everything random about this task is drawn."""
        return stable_key(str(self), purpose)


@dataclass(frozen=True)
class Support:
    """The labelled images or clips a learner adapts to.

    Attributes:
        images: [N, 3, S, S], or clips [N, T, 3, S, S], of values 0 to 255: uint8, or float32 where a protocol resizes
            without rounding.
        labels: int64 [N], every class 0..way-1 present.
        way: number of classes C.
    """

    images: Tensor
    labels: Tensor
    way: int


@dataclass(frozen=True)
class TaskSizes:
    """What of a support set its cost depends on.

    Attributes:
        class_counts: support items of each class.
        frames: images of each item: 1, or the frames T of a clip.
    """

    class_counts: tuple[int, ...]
    frames: int = 1

    @property
    def way(self) -> int:
        """Number of classes C."""
        return len(self.class_counts)

    @property
    def items(self) -> int:
        """Number of support items N."""
        return sum(self.class_counts)

    @property
    def images(self) -> int:
        """Images that networks see: frames of all items."""
        return self.items * self.frames


@dataclass(frozen=True)
class QueryBatch:
    """Some of the images to classify.

    Attributes:
        images: [M, 3, S, S], or in training also clips [M, T, 3, S, S], of values 0 to 255, uint8 or float32.
        labels: int64 [M] in 0..way-1; in an evaluation also -1, for a class that the support set lacks.
        groups: int64 [M], the number of the group that an item belongs to (the video of a frame), in the order of
            the episode's ``groups``; or None.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor | None = None


@dataclass(frozen=True)
class Episode:
    """The tensors of a task: a support set, and the query set as an iterable of batches of any size.

    An episode is a pure function of its task: any worker on any machine makes the same one, in any order.

    Attributes:
        task: its name.
        support: what to adapt to.
        query: what to classify; iterated anew each time.
        n_query: queries in all.
        groups: names of the groups of queries, such as videos, whose scores are reported; queries come group after
            group, in this order. Empty where every query counts by itself.
        window: a query is classified from the mean of the features of the last ``window`` items of its group up to
            itself; before the first item, the first is repeated.
        query_id: the same for tasks with the same query set, labels and order, or empty.
        cluster: the same for tasks that are not independent, such as those of one user, or empty.
    """

    task: Task
    support: Support
    query: Iterable[QueryBatch]
    n_query: int
    groups: Sequence[str] = ()
    window: int = 1
    query_id: str = ""
    cluster: str = ""


@dataclass(frozen=True)
class SourceData:
    """What a suite of several data sets found of one of its sources.

    Attributes:
        fingerprint: a hash of the data, empty if it is missing.
        synthetic: True for stand-in data, whose results never mix with real ones.
        missing: why the source cannot be used and what to do about it, or empty.
    """

    fingerprint: str = ""
    synthetic: bool = False
    missing: str = ""


class Suite(Protocol):
    """A benchmark: which tasks to train, validate and test on, and how their scores are grouped.

    A suite's entry point is a callable ``(image_size: int | None, data_dir: Path | None, *, option=..., ...)``
    that returns one; its keyword-only parameters are the options of ``-S key=value``. One called ``version`` is also
    set by ``--suite name@version``. Optional attributes:

    * ``source_data: Mapping[str, SourceData]`` for a suite of several data sets, by test source. Missing ones are
      passed over, and every result carries the hash of its own source. ``train_data`` is the same by training source.
    * ``pixel_range = "signed"`` if the protocol maps images to [-1, 1] whatever the backbone was trained on.
    * ``improves(candidate, incumbent) -> bool``, the protocol's choice between the validation accuracies by source of
      two models; ``incumbent`` is None at first. By default the higher mean wins.
    * ``notes: Sequence[str]`` to print when it is opened, ``class_splits()`` to record.
    * ``metrics: Sequence[str]``, of `GROUP_METRICS`, for a suite whose queries come in groups: what it reports.
    * ``predictions(tasks, macs) -> Any``, the benchmark's own form of a file of predictions, ready for JSON, from the
      predicted classes by task and group (``Mapping[Task, Mapping[str, Sequence[int]]]``) and from the published
      multiply-accumulates of adapting by task, as far as they are known.
    """

    @property
    def id(self) -> str:
        """Name and version, such as ``glyphs@1``; results of different ids never share a column."""

    @property
    def image_size(self) -> int:
        """Side S of the square images, in pixels."""

    @property
    def fingerprint(self) -> str:
        """A hash of the data read; a suite with ``source_data`` gives one of what it has in common there."""

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Reported groups and the sources each averages over."""

    def train_task(self, index: int, seed: int) -> Task:
        """Name training task ``index`` of the endless list that ``seed`` stands for."""

    def tasks(self, split: Split, seed: int = 0) -> Mapping[str, Sequence[Task]]:
        """List the protocol's tasks of ``validation`` or ``test`` by source, in reporting order."""

    def episode(self, task: Task) -> Episode:
        """Make the episode of ``task``; safe to call from several threads at once."""


class SuiteFactory(Protocol):
    """What a suite's entry point names; usually the suite's class."""

    embedded: bool
    """True if the suite needs no data on disk."""

    def __call__(self, image_size: int | None, data_dir: Path | None, **options: Any) -> Suite:
        """Open the suite."""

    def configured(self, data_dir: Path | None) -> str | None:
        """Say in a few words where this suite's data was found, or None if it was not."""


class Encode(Protocol):
    """Runs a network over support images; the estimator behind it decides how gradients come back.

    An optional method ``finish()`` is called once gradients have come back through `adapt`, and carries on from there.
    An optional ``mean(network, images) -> [D]`` is the mean of the encodings over the support set, for an estimator
    that departs from the plain one.
    """

    chunk: int
    """Items that may travel through a network at once; a memory knob that never changes the result."""

    def __call__(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Apply ``network``, which maps [n, 3, S, S] to [n, D] image by image, to all items of the support set.

        Args:
            network: to run.
            images: [N, 3, S, S], or clips [N, T, 3, S, S].

        Returns:
            [N, D], the same values whatever the estimator; of a clip, the mean over its frames.
        """


@runtime_checkable
class Learner(Protocol):
    """Anything that adapts to a support set and then classifies; in practice a ``torch.nn.Module``.

    A learner's entry point is a callable ``(backbone, *, option=..., ...)`` that returns one; its keyword-only
    parameters are the options of ``-P key=value``. Parameters with ``requires_grad`` are meta-trained. Optional:

    * ``penalty() -> Tensor`` adds a regulariser to the task loss.
    * ``default_lr`` replaces the default learning rate.
    * ``meta_trained: bool`` and ``passes: str``, written as plain values in the class: whether it is meta-trained, and
      how many passes over the support set adapting takes, ``1F`` for one forward, ``15FB`` for 15 forward and backward.
      An object may have ``passes`` of its own, as its options say.
    * ``published_macs(sizes, network_macs) -> int`` is the cost of adapting as published tables count it (ORBIT's
      Table 1): multiply-accumulates from the sizes of a support set (`TaskSizes`) and from
      ``network_macs(module) -> int``, those of one image in a network.

    * ``fixed_batches = True`` says that the batch sizes are settings of this learner, so that nothing may lower them.
    * ``adapts_once = True`` says that training adapts to each task exactly once, as its gradient comes from `adapt`.

    Neither method keeps tensors that it computed: costs are counted on tensors without values. Loops of many equal
    steps run over `lite_bench.harness.repetition.repeated`, which keeps that counting quick. An `adapt` whose steps
    diverge raises `lite_bench.harness.errors.DivergedError`; the task then counts as failed.
    """

    def adapt(self, support: Support, encode: Encode) -> Any:
        """Learn the task. Leaves the learner unchanged.

        Returns:
            a dataclass of tensors, the only link between the support set and the queries.
        """

    def classify(self, state: Any, images: Tensor) -> Tensor:
        """Compute logits [M, C] for query images [M, 3, S, S]; each row depends on its image alone."""


@runtime_checkable
class FeatureLearner(Learner, Protocol):
    """A learner whose classification has two steps, which suites of videos need: features are averaged in between.

    An optional class attribute ``task_free_features = True`` says that its features do not depend on the state, so
    that tasks with the same queries may share them.
    """

    def features(self, state: Any, images: Tensor) -> Tensor:
        """Compute features [M, D] of query images [M, 3, S, S]; each row depends on its image alone."""

    def logits(self, state: Any, features: Tensor) -> Tensor:
        """Compute logits [M, C] from features [M, D]; ``classify`` is this of those."""


class Draw(Protocol):
    """One task as an estimator shows it to a learner.

    An optional method ``caching() -> Encode`` asks for one pass of `adapt` without gradients, ahead of all others.
    """

    @property
    def support(self) -> Support:
        """The support set to adapt to; smaller than the task's only for ``subsample``."""

    def encode(self) -> Encode:
        """Give the ``encode`` for one call of ``adapt``; random choices are made anew in each."""


class Estimator(Protocol):
    """How the gradient through the support set is obtained.

    An estimator's entry point is a callable ``(h: int, chunk: int)`` that returns one. Optional attributes:
    ``uses_h = False`` says that H plays no part in it, ``bounded_memory = False`` that its memory grows with the
    support set, ``covers_classes = True`` that it takes at least one image of every class even where H is smaller,
    ``scales_penalty = False`` that `update_scale` applies to the cross-entropy alone.

    Attributes:
        name: its entry-point name.
        h: LITE's H, the support items that carry a gradient.
        chunk: items that travel through a network at once; may be changed between tasks.
        per_image: True if it is only right when an image's encoding depends on that image alone.
        redraws: True if the images that carry a gradient are drawn anew for every query batch.
        sums_batches: True if query-batch means are summed, as the released codes do, not weighted to a mean.
    """

    name: str
    h: int
    chunk: int
    per_image: bool
    redraws: bool
    sums_batches: bool

    def begin(self, support: Support, generator: torch.Generator) -> Draw:
        """Start on a task; ``generator`` (on the CPU) supplies all randomness."""

    def update_scale(self, n_support: int) -> float:
        """Give the factor on the whole task gradient: 1, except in ``lite-paper`` (Algorithm 1, line 11)."""


LATENESS = "frames to recognition"
"""The one metric of which less is better."""
GROUP_METRICS = ("frame accuracy", "video accuracy", LATENESS)


@dataclass(frozen=True)
class GroupScore:
    """How the queries of one group, the frames of a video, were classified.

    Attributes:
        name: of the group.
        n: number of queries.
        frame_accuracy: fraction classified correctly, 0 to 1.
        video_accuracy: 1 if the class predicted most often, of several the smallest, is right, else 0.
        frames_to_recognition: place of the first correct prediction, counted from 0, over ``n``; 1 if there is none.
    """

    name: str
    n: int
    frame_accuracy: float
    video_accuracy: float
    frames_to_recognition: float

    def metric(self, name: str) -> float:
        """Give the value of one of `GROUP_METRICS`."""
        return float(getattr(self, name.replace(" ", "_")))


@dataclass(frozen=True)
class Cost:
    """What adapting to a task and classifying an image cost; None where it is not known.

    Attributes:
        passes: over the support set, such as ``1F`` or ``15FB``; empty if the learner does not say.
        macs: multiply-accumulates of adapting, backward passes and linear algebra included.
        macs_per_query: multiply-accumulates of classifying one image by itself.
        published_macs: of adapting, as published tables count.
        uncounted: operations that are in neither count, by name.
        parameters: parameters of the learner, frozen ones too.
        trainable: those that are meta-trained.
        adapted: numbers that the task's state consists of.
        peak_bytes: most memory that tensors took while adapting and classifying, above what they took before; on a GPU
            with the task's images.
        device: that the task ran on, in words.
    """

    passes: str = ""
    macs: int | None = None
    macs_per_query: int | None = None
    published_macs: int | None = None
    uncounted: tuple[str, ...] = ()
    parameters: int | None = None
    trainable: int | None = None
    adapted: int | None = None
    peak_bytes: int | None = None
    device: str = ""


@dataclass(frozen=True)
class Record:
    """The result of one learner on one task, with everything needed to trust it.

    Attributes:
        task: the printed task.
        suite: suite and version.
        source: the task's source.
        learner: entry-point name of the learner.
        backbone: name of the backbone.
        image_size: side of the images in pixels.
        accuracy: fraction of queries classified correctly, 0 to 1; of grouped queries, the mean over groups. None if
            the task failed.
        way: number of classes.
        n_support: number of support items.
        n_query: number of queries.
        adapt_seconds: wall time of ``adapt``, synchronised; without reading data and copying it to the device.
        classify_seconds: wall time of classifying all queries, likewise.
        checkpoint: SHA-256 of the weights file, or ``untrained``.
        data: fingerprint of the suite's data.
        version: version of lite-bench.
        synthetic: True for stand-in data, whose results never mix with real ones.
        cluster: what the tasks that are not independent of this one have in common, such as a user, or empty.
        groups: the scores of its groups of queries, if there are any.
        cost: what it cost, if that was measured.
        failed: why there is no accuracy, or empty.
        schema: version of the layout of records.
    """

    task: str
    suite: str
    source: str
    learner: str
    backbone: str
    image_size: int
    accuracy: float | None
    way: int
    n_support: int
    n_query: int
    adapt_seconds: float
    classify_seconds: float
    checkpoint: str
    data: str
    version: str
    synthetic: bool = False
    cluster: str = ""
    groups: tuple[GroupScore, ...] = ()
    cost: Cost | None = None
    failed: str = ""
    schema: int = 1
