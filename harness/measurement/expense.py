"""What runs that are planned would cost, in multiply-accumulates, from typical task sizes and without computing.

An estimate counts one task of each kind on tensors without values (`hollow`) and takes the number of tasks times
that. It is the arithmetic that a run cannot do without, and leaves out reading data, validation and optimizer steps.

A training task takes a forward of its N support images, forward and backward of its M queries, and forward and backward
of the H support images that carry a gradient: all of them with an estimator that draws none. An estimator whose memory
does not grow with the support set runs these H a second time, one that keeps the graph of all does not. (Some run them
once where they fit into one batch, which an estimate leaves aside.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lite_bench.harness.answers import Setting
from lite_bench.harness.assembly import build_learner
from lite_bench.harness.clips import per_item
from lite_bench.harness.core import Estimator, Learner, QueryBatch, Support, TaskSizes
from lite_bench.harness.errors import LiteBenchError, RunError
from lite_bench.harness.measurement.costs import Counts, NetworkCost, count_task, shapes_of_images
from lite_bench.harness.measurement.counting import NotCountableError, counting, hollow
from lite_bench.harness.registry import ESTIMATORS
from lite_bench.harness.reproduction import Work
from lite_bench.harness.settings import Settings
from lite_bench.harness.step import backward_through_adapt, query_loss, split_halves

DEFAULT_SIDE = 224
PLACE = torch.device("cpu")
PLAIN = "full"
"""The estimator whose forward is the plain one."""


@dataclass(frozen=True)
class Expense:
    """An estimate in multiply-accumulates.

    Attributes:
        training: of training tasks.
        evaluation: of the tasks of an evaluation.
        unknown: why there is no estimate; the numbers then leave something out.
    """

    training: float = 0.0
    evaluation: float = 0.0
    unknown: str = ""

    @property
    def macs(self) -> float:
        """All of it."""
        return self.training + self.evaluation

    def __add__(self, other: Expense) -> Expense:
        """Put two estimates together."""
        unknown = " ".join(dict.fromkeys(filter(None, (self.unknown, other.unknown))))
        return Expense(self.training + other.training, self.evaluation + other.evaluation, unknown)


@dataclass(frozen=True)
class TrainingParts:
    """Multiply-accumulates of one training task, before an estimator decides how much of it is run.

    Attributes:
        forward: of the whole support set, with the learner's head.
        backward: of the whole support set.
        query: forward and backward of all queries.
    """

    forward: float
    backward: float
    query: float

    def of(self, estimator: Estimator, h: int, n_support: int) -> float:
        """Say what of it ``estimator`` runs on a task of ``n_support`` items."""
        share = min(1.0, h / n_support) if getattr(estimator, "uses_h", True) else 1.0
        if getattr(estimator, "covers_classes", False):  # `subsample` sees no other image, and keeps their graph
            return share * (self.forward + self.backward) + self.query
        again = share if getattr(estimator, "bounded_memory", True) else 0.0
        return (1 + again) * self.forward + share * self.backward + self.query


class _PlainEncode:
    """An `Encode` that runs every network on all items at once, with a graph if there is to be one."""

    chunk = 2**31

    def __call__(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Encode items to [N, D]."""
        return per_item(network, images)


@dataclass
class _Subject:
    """A learner and what is known of it.

    Attributes:
        learner: under its own protocol.
        module: the same object.
        side: of the images, in pixels.
        networks: what single images take in networks, in evaluation mode.
        counts: of evaluation tasks, by their sizes.
        parts: of training tasks, by their sizes.
    """

    learner: Learner
    module: nn.Module
    side: int
    networks: dict[object, NetworkCost] = field(default_factory=dict)
    counts: dict[TaskSizes, Counts] = field(default_factory=dict)
    parts: dict[tuple[TaskSizes, int], TrainingParts] = field(default_factory=dict)


class Appraiser:
    """Estimates what work costs; every learner is built once, and tasks of every size are counted once."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._subjects: dict[str, _Subject] = {}

    def expense(self, works: Iterable[Work]) -> Expense:
        """Estimate pieces of work together; what cannot be counted is said, and no reason to fail."""
        return sum((self._one(work) for work in works), Expense())

    def _one(self, work: Work) -> Expense:
        try:
            macs = self._training(work) if work.kind == "training" else self._evaluation(work)
        except (LiteBenchError, NotCountableError) as error:
            return Expense(unknown=f"{work.kind} of {work.settings.learner} is not counted: {error}")
        return Expense(training=macs) if work.kind == "training" else Expense(evaluation=macs)

    def _training(self, work: Work) -> float:
        subject = self._subject(work.settings)
        sizes = spread_out(work)
        key = sizes, work.query
        if key not in subject.parts:
            subject.parts[key] = training_parts(subject.learner, subject.module, sizes, work.query, subject.side)
        estimator: Estimator = ESTIMATORS.load(work.settings.gradient)(0, 1)
        h = work.settings.h if getattr(estimator, "uses_h", True) else 0
        return work.tasks * subject.parts[key].of(estimator, h, sizes.items)

    def _evaluation(self, work: Work) -> float:
        subject = self._subject(work.settings)
        sizes = spread_out(work)
        if sizes not in subject.counts:
            setting = Setting(subject.learner, ESTIMATORS.load(PLAIN)(0, 1), 1, PLACE, nullcontext)
            subject.module.eval()
            subject.counts[sizes] = count_task(setting, sizes, subject.side, subject.networks)
        found = subject.counts[sizes]
        if found.adapt is None or found.query is None:
            raise RunError(found.problem)
        shared = work.sharing if getattr(subject.learner, "task_free_features", False) else 1
        return work.tasks * (found.adapt.macs + work.query / shared * found.query.macs)

    def _subject(self, settings: Settings) -> _Subject:
        """Build a learner, without weights, which cost nothing."""
        plain = settings.changed(pretrained=False, weights=None)
        side = settings.image_size or DEFAULT_SIDE
        key = repr((plain.learner, sorted(plain.params.items()), plain.backbone, side))
        if key not in self._subjects:
            self._subjects[key] = _Subject(*build_learner(plain, side), side)
        return self._subjects[key]


def spread_out(work: Work) -> TaskSizes:
    """Give the sizes of a support set whose items are spread evenly over its classes, some of which may get none."""
    extra = work.support % work.way
    return TaskSizes(tuple(work.support // work.way + (label < extra) for label in range(work.way)), work.frames)


def training_parts(learner: Learner, module: nn.Module, sizes: TaskSizes, n_query: int, side: int) -> TrainingParts:
    """Count one training task without computing it.

    Args:
        learner: to be trained.
        module: the same object; put in training mode.
        sizes: of the support set.
        n_query: query items.
        side: of the images, in pixels.

    Raises:
        NotCountableError: how it goes on depends on values that are not computed.
    """
    module.train()
    labels = torch.repeat_interleave(torch.arange(sizes.way), torch.tensor(sizes.class_counts))
    support = Support(hollow(shapes_of_images(sizes.items, sizes.frames, side), torch.uint8), labels, sizes.way)
    batch = QueryBatch(
        hollow(shapes_of_images(n_query, sizes.frames, side), torch.uint8), torch.arange(n_query) % sizes.way
    )
    with _quiet(), counting(hollowly=True) as tally:
        leaves, pairs = split_halves(learner.adapt(support, _PlainEncode()))
        adapted = tally.macs
        loss, penalty, _ = query_loss(learner, leaves, batch, PLACE, nullcontext)
        (loss + penalty).backward()  # type: ignore[no-untyped-call]  # torch
        classified = tally.macs
        backward_through_adapt(pairs)
        whole = tally.macs
    return TrainingParts(adapted, whole - classified, classified - adapted)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's advice on strides of gradients, which mean nothing without values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        yield
