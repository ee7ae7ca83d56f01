"""Evaluation: adapt to each task's support set, classify its queries, append one record."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from lite_bench.harness.answers import Setting, SharedFeatures, score_task, warm_up
from lite_bench.harness.assembly import precision_context
from lite_bench.harness.core import Cost, Episode, Estimator, Learner, Record, SourceData, Split, Suite, Task
from lite_bench.harness.environment import command_line, installed_versions
from lite_bench.harness.errors import DataError, RunError
from lite_bench.harness.files import locked, write_errors
from lite_bench.harness.loading import EpisodeStream
from lite_bench.harness.measurement.costs import CostMeter
from lite_bench.harness.measurement.peak import with_device_peak
from lite_bench.harness.memory import BatchSizes, fixed_advice, is_out_of_memory, release_memory, without_frames
from lite_bench.harness.records import (
    MANIFEST,
    Manifest,
    append_predictions,
    append_record,
    joined_versions,
    predictions_path,
    read_manifest,
    read_predictions,
    read_records,
    records_path,
    repair,
    results_folder,
    write_manifest,
)
from lite_bench.harness.scoring import Score
from lite_bench.harness.settings import Settings

UNTRAINED = "untrained"
LOCK = ".evaluation.lock"


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

    def scores(self, suite: Suite, tasks: Sequence[Task], *, warm: bool = False) -> Iterator[tuple[Episode, Score]]:
        """Score tasks in order; ``warm`` runs a small task first, so that times are those of a device in use."""
        was_training = self.module.training
        self.module.eval()
        sizes = self.sizes
        shared = SharedFeatures() if getattr(self.learner, "task_free_features", False) else None
        try:
            for episode in EpisodeStream(suite, tasks, self.settings.workers):
                if warm:
                    warm_up(self.setting(sizes), episode.support)
                    warm = False
                score, sizes = self._score(episode, sizes, shared)
                yield episode, score
        finally:
            self.module.train(was_training)

    @property
    def sizes(self) -> BatchSizes:
        """The batch sizes asked for."""
        return BatchSizes(self.settings.batch_size, self.settings.query_batch)

    def setting(self, sizes: BatchSizes) -> Setting:
        """Say how tasks are run with batches of ``sizes``."""
        self.encoder.chunk = sizes.chunk
        precision = precision_context(self.settings.precision, self.device)
        return Setting(self.learner, self.encoder, sizes.query, self.device, precision)

    def _score(self, episode: Episode, sizes: BatchSizes, shared: SharedFeatures | None) -> tuple[Score, BatchSizes]:
        """Score one task, with smaller batches if memory runs out; gives the sizes that fitted.

        Raises:
            RunError: single images do not fit, or the learner's results depend on the batches.
        """
        while True:
            try:
                score, peak = with_device_peak(partial(score_task, self.setting(sizes), episode, shared), self.device)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = without_frames(error)
            else:
                return replace(score, peak_bytes=peak), sizes
            release_memory()
            if getattr(self.learner, "fixed_batches", False):
                raise RunError(fixed_advice(sizes)) from problem
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
            source_data={name: found.fingerprint for name, found in source_data(suite).items() if not found.missing},
            missing={name: found.missing for name, found in source_data(suite).items() if found.missing},
            digests={source: digest_of(listed) for source, listed in tasks.items()},
            versions={name: [found] for name, found in installed_versions().items()},
            commands=[command_line()],
            metrics=list(getattr(suite, "metrics", ())),
            limit=self.settings.limit,
        )

    def record(self, suite: Suite, episode: Episode, score: Score, cost: Cost | None = None) -> Record:
        """Write down one result."""
        data = source_data(suite).get(episode.task.source, SourceData(suite.fingerprint))
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
            data=data.fingerprint,
            version=version("lite-bench"),
            synthetic=data.synthetic,
            cluster=episode.cluster,
            groups=score.groups,
            cost=cost,
            failed=score.failed,
        )


def source_data(suite: Suite) -> Mapping[str, SourceData]:
    """Give what a suite of several data sets found of each, or nothing for another suite."""
    found: Mapping[str, SourceData] = getattr(suite, "source_data", {})
    return found


def digest_of(tasks: Sequence[Task]) -> str:
    """Hash a list of tasks: SHA-256 over their names, one a line."""
    return hashlib.sha256("".join(f"{task}\n" for task in tasks).encode()).hexdigest()


Notify = Callable[[str, int, int, Record | None], None]
"""Told (source, tasks done, tasks asked for, the record just made): after every task, once per source before it."""


def evaluate(
    evaluation: Evaluation,
    suite: Suite,
    run: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    keep_predictions: bool = False,
    label: str | None = None,
    notify: Notify = lambda source, done, total, record: None,
) -> Manifest:
    """Score a learner on the suite's test tasks, going on where an earlier evaluation stopped.

    Sources whose data is missing are passed over; evaluated again when it is there, they are added.

    Args:
        evaluation: the learner.
        suite: the benchmark.
        run: run folder the records go to.
        seed: seed of the list of tasks.
        overwrite: discard results of another evaluation of this suite in ``run``.
        keep_predictions: write down every group's predicted classes beside the records.
        label: what leaderboards call it; None leaves what an earlier evaluation called it.
        notify: called as the work goes on.

    Raises:
        RunError: ``run`` holds results of this suite for another checkpoint, other data or other settings, or without
            the predictions that are to be kept.
        DataError: the data of every source is missing.
    """
    tasks = suite.tasks("test", seed)
    manifest = evaluation.manifest(suite, "test", seed, tasks)
    refuse_without_data(suite)
    folder = results_folder(run, suite.id)
    refusal = f"Another evaluation is writing to {folder} at this moment; wait for it or stop it."
    with locked(run / LOCK, refusal):
        if overwrite and folder.exists():
            with write_errors(folder):
                shutil.rmtree(folder)
        settled = _settle_manifest(folder, manifest, label)
        _evaluate_missing_tasks(evaluation, suite, run, tasks, manifest, notify, keep_predictions=keep_predictions)
    return settled


def refuse_without_data(suite: Suite) -> None:
    """Refuse a suite of several data sets that has none of them.

    Raises:
        DataError: the data of every test source is missing.
    """
    found = source_data(suite)
    if found and all(data.missing for data in found.values()):
        raise DataError(f"No source of {suite.id} can be evaluated: {next(iter(found.values())).missing}")


def _evaluate_missing_tasks(
    evaluation: Evaluation,
    suite: Suite,
    run: Path,
    tasks: Mapping[str, Sequence[Task]],
    manifest: Manifest,
    notify: Notify,
    *,
    keep_predictions: bool,
) -> None:
    """Score the tasks that have no record yet, source by source."""
    meter = CostMeter(evaluation.setting(evaluation.sizes), evaluation.module, suite.image_size)
    warmed = False
    for source, listed in tasks.items():
        if source in manifest.missing:
            continue
        asked = listed[: manifest.expected(source)]
        path = records_path(run, suite.id, source)
        repair(path)
        done = {record.task for record in read_records(path)}
        kept_in = predictions_path(run, suite.id, source)
        if keep_predictions:
            repair(kept_in)
            without = done - read_predictions(kept_in).keys()
            if without:
                raise RunError(
                    f"{path} holds {len(without)} tasks whose predictions were not kept ({min(without)}); use "
                    "--overwrite to evaluate them again."
                )
        remaining = [task for task in asked if str(task) not in done]
        finished = len(asked) - len(remaining)
        notify(source, finished, len(asked), None)
        meter.next_source()
        scores = evaluation.scores(suite, remaining, warm=not warmed)
        warmed = warmed or bool(remaining)
        for number, (episode, score) in enumerate(scores, start=finished + 1):
            record = evaluation.record(suite, episode, score, meter.cost(episode, score))
            if keep_predictions:  # first, so that a task with a record has its predictions too
                append_predictions(kept_in, record.task, score.predictions)
            append_record(path, record)
            notify(source, number, len(asked), record)


MAY_CHANGE = ("limit", "label", "groups", "missing", "source_data", "digests", "sources", "versions", "commands")
"""What of a manifest another evaluation of the same run may extend."""


def _differences(earlier: Manifest, manifest: Manifest) -> Iterator[tuple[str, object, object]]:
    """Yield what keeps two evaluations from being one: its name, and its values."""
    for name, now in vars(manifest).items():
        if name not in MAY_CHANGE and getattr(earlier, name) != now:
            yield name, getattr(earlier, name), now
    for kind in ("sources", "source_data", "digests"):
        before, after = getattr(earlier, kind), getattr(manifest, kind)
        for source in before.keys() & after.keys():
            if before[source] != after[source]:
                noun = {"sources": "number of tasks", "source_data": "data", "digests": "list of tasks"}[kind]
                yield f"{noun} of {source}", before[source], after[source]


def _settle_manifest(folder: Path, manifest: Manifest, label: str | None) -> Manifest:
    """Write the manifest, unless results of a different evaluation are there.

    A larger limit extends what was asked for; a smaller one takes nothing back.
    """
    manifest = replace(manifest, label=label or "")
    if (folder / MANIFEST).is_file():
        earlier = read_manifest(folder)
        for name, before, now in _differences(earlier, manifest):
            raise RunError(
                f"{folder} holds results with another {name} ({before!r}, now {now!r}); use --overwrite to replace "
                "them, or evaluate in another run."
            )
        manifest = replace(
            manifest,
            sources={**earlier.sources, **manifest.sources},
            source_data={**earlier.source_data, **manifest.source_data},
            digests={**earlier.digests, **manifest.digests},
            label=earlier.label if label is None else label,
            versions=joined_versions([earlier.versions, manifest.versions]),
            commands=list(dict.fromkeys(earlier.commands + manifest.commands)),
        )
        limits = (earlier.limit, manifest.limit)
        manifest = replace(manifest, limit=None if None in limits else max(limit for limit in limits if limit))
    write_manifest(folder, manifest)
    return manifest
