"""Evaluation: adapt to each task's support set, classify its queries, append one record."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from lite_bench.harness.assembly import precision_context
from lite_bench.harness.core import Episode, Estimator, Learner, Record, Split, Suite, Task
from lite_bench.harness.errors import RunError
from lite_bench.harness.files import write_errors
from lite_bench.harness.loading import EpisodeStream
from lite_bench.harness.measurement.stopwatch import clock
from lite_bench.harness.memory import BatchSizes, is_out_of_memory, release_memory
from lite_bench.harness.records import (
    MANIFEST,
    Manifest,
    append_record,
    read_manifest,
    read_records,
    records_path,
    repair,
    results_folder,
    write_manifest,
)
from lite_bench.harness.settings import Settings
from lite_bench.harness.step import Context, move_support, query_batches

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Score:
    """What a learner did on one task: counts, and synchronised wall times in seconds."""

    correct: int
    n_query: int
    adapt_seconds: float
    classify_seconds: float

    @property
    def accuracy(self) -> float:
        """Fraction of queries classified correctly, 0 to 1."""
        return self.correct / self.n_query


@torch.no_grad()
def score_task(
    learner: Learner,
    episode: Episode,
    encoder: Estimator,
    batch_size: int,
    device: torch.device,
    precision: Context,
) -> Score:
    """Adapt to one task and classify its queries.

    Args:
        learner: in evaluation mode, on ``device``.
        episode: the task.
        encoder: any estimator: without gradients all run the same chunked forward.
        batch_size: queries at a time.
        device: where to run.
        precision: context of the networks.
    """
    support = move_support(episode.support, device)
    start = clock(device)
    with precision():
        state = learner.adapt(support, encoder.begin(support, torch.Generator()).encode())
    adapted = clock(device)
    correct = n_query = 0
    for batch in query_batches(episode.query, batch_size):
        with precision():
            logits = learner.classify(state, batch.images.to(device))
        correct += int((logits.argmax(1).cpu() == batch.labels).sum())
        n_query += len(batch.labels)
    return Score(correct, n_query, adapted - start, clock(device) - adapted)


@dataclass(frozen=True)
class Evaluation:
    """A learner, ready to be scored on tasks.

    Attributes:
        learner: under its own protocol.
        module: the same object as a module.
        encoder: supplies ``encode``.
        settings: names, precision, batch size, workers and limit.
        device: where to run.
        checkpoint: SHA-256 of the weights, or ``untrained``.
        note: told when memory runs out.
    """

    learner: Learner
    module: nn.Module
    encoder: Estimator
    settings: Settings
    device: torch.device
    checkpoint: str = UNTRAINED
    note: Callable[[str], None] = lambda text: None

    def scores(self, suite: Suite, tasks: Sequence[Task]) -> Iterator[tuple[Episode, Score]]:
        """Score tasks in order."""
        was_training = self.module.training
        self.module.eval()
        sizes = BatchSizes(self.settings.batch_size, self.settings.query_batch)
        try:
            for episode in EpisodeStream(suite, tasks, self.settings.workers):
                score, sizes = self._score(episode, sizes)
                yield episode, score
        finally:
            self.module.train(was_training)

    def _score(self, episode: Episode, sizes: BatchSizes) -> tuple[Score, BatchSizes]:
        """Score one task, with smaller batches if memory runs out; gives the sizes that fitted.

        Raises:
            RunError: single images do not fit.
        """
        precision = precision_context(self.settings.precision, self.device)
        while True:
            self.encoder.chunk = sizes.chunk
            try:
                score = score_task(self.learner, episode, self.encoder, sizes.query, self.device, precision)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = error.with_traceback(None)  # the traceback would keep the abandoned tensors alive
            else:
                return score, sizes
            release_memory()
            if sizes.smallest:
                raise RunError(
                    f"Memory ran out on {episode.task} with {sizes}, the smallest batches there are; use a smaller "
                    "--image-size or backbone, or --precision bf16."
                ) from problem
            self.note(
                f"Memory ran out on {episode.task} with {sizes}; going on with {sizes.halved()}, which changes "
                "no result."
            )
            sizes = sizes.halved()

    def manifest(self, suite: Suite, split: Split, seed: int, tasks: Mapping[str, Sequence[Task]]) -> Manifest:
        """Describe this evaluation on ``suite``."""
        return Manifest(
            suite=suite.id,
            split=split,
            seed=seed,
            sources={source: len(listed) for source, listed in tasks.items()},
            groups={name: list(members) for name, members in suite.groups.items()},
            learner=self.settings.learner,
            backbone=self.settings.backbone,
            image_size=suite.image_size,
            checkpoint=self.checkpoint,
            data=suite.fingerprint,
            precision=self.settings.precision,
            limit=self.settings.limit,
        )

    def record(self, suite: Suite, episode: Episode, score: Score) -> Record:
        """Write down one result."""
        return Record(
            task=str(episode.task),
            suite=suite.id,
            source=episode.task.source,
            learner=self.settings.learner,
            backbone=self.settings.backbone,
            image_size=suite.image_size,
            accuracy=score.accuracy,
            way=episode.support.way,
            n_support=len(episode.support.labels),
            n_query=score.n_query,
            adapt_seconds=score.adapt_seconds,
            classify_seconds=score.classify_seconds,
            checkpoint=self.checkpoint,
            data=suite.fingerprint,
            version=version("lite-bench"),
        )


Notify = Callable[[str, int, int, Record | None], None]
"""Told (source, tasks done, tasks asked for, the record just made): after every task, once per source before it."""


def evaluate(
    evaluation: Evaluation,
    suite: Suite,
    run: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    notify: Notify = lambda source, done, total, record: None,
) -> Manifest:
    """Score a learner on the suite's test tasks, going on where an earlier evaluation stopped.

    Args:
        evaluation: the learner.
        suite: the benchmark.
        run: run folder the records go to.
        seed: seed of the list of tasks.
        overwrite: discard results of another evaluation of this suite in ``run``.
        notify: called as the work goes on.

    Raises:
        RunError: ``run`` holds results of this suite for another checkpoint or other settings.
    """
    tasks = suite.tasks("test", seed)
    manifest = evaluation.manifest(suite, "test", seed, tasks)
    folder = results_folder(run, suite.id)
    if overwrite and folder.exists():
        with write_errors(folder):
            shutil.rmtree(folder)
    settled = _settle_manifest(folder, manifest)
    for source, listed in tasks.items():
        asked = listed[: manifest.expected(source)]
        path = records_path(run, suite.id, source)
        repair(path)
        done = {record.task for record in read_records(path)}
        remaining = [task for task in asked if str(task) not in done]
        finished = len(asked) - len(remaining)
        notify(source, finished, len(asked), None)
        for number, (episode, score) in enumerate(evaluation.scores(suite, remaining), start=finished + 1):
            record = evaluation.record(suite, episode, score)
            append_record(path, record)
            notify(source, number, len(asked), record)
    return settled


def _settle_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest, unless results of a different evaluation are there.

    A larger limit extends what was asked for; a smaller one takes nothing back.
    """
    if (folder / MANIFEST).is_file():
        earlier = read_manifest(folder)
        differing = [
            name
            for name, value in vars(manifest).items()
            if name not in ("limit", "label", "groups") and getattr(earlier, name) != value
        ]
        if differing:
            name = differing[0]
            raise RunError(
                f"{folder} holds results with another {name} ({getattr(earlier, name)!r}, now "
                f"{getattr(manifest, name)!r}); use --overwrite to replace them, or evaluate in another run."
            )
        limits = (earlier.limit, manifest.limit)
        manifest = replace(manifest, limit=None if None in limits else max(limit for limit in limits if limit))
    write_manifest(folder, manifest)
    return manifest
