"""``orbit``: recognising a person's own objects in videos (Massiceti et al., ICCV 2021).

A task is of one user: the support set is clips of videos of that user's objects, and the frames of other videos of
them are classified. In the mode ``clean`` those show the object alone as well (the published CLE-VE), in ``clutter``
among other things (CLU-VE). Two versions: ``2021``, the default, as in Bronskill et al. (NeurIPS 2021), and ``2022``,
as the benchmark's authors have had it since December 2022; see ``protocol.toml``.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lite_bench.datasets.episodes import check_image_size, check_task, suite_id
from lite_bench.datasets.orbit.annotations import frames_with_object
from lite_bench.datasets.orbit.challenge import Macs, Predictions, challenge_file
from lite_bench.datasets.orbit.episodes import evaluation_episode, pretraining_episode, training_episode
from lite_bench.datasets.orbit.frames import read_frames
from lite_bench.datasets.orbit.layout import find_root, found_roots, missing_root
from lite_bench.datasets.orbit.protocol import CapsName, Rules, Version, rules
from lite_bench.datasets.orbit.published import published_users
from lite_bench.datasets.orbit.sampling import (
    MIN_WAY,
    Candidate,
    FramesOf,
    Plan,
    Positions,
    all_frames,
    candidates,
    evaluation_plan,
    train_plan,
    train_user,
)
from lite_bench.datasets.orbit.scan import open_dataset
from lite_bench.datasets.orbit.videos import KINDS, Kind, UserObject, Video
from lite_bench.datasets.sampling import task_generator
from lite_bench.harness.core import Episode, SourceData, Split, Task
from lite_bench.harness.errors import DataError, UsageError

Mode = Literal["both", "clean", "clutter"]
TrainLabels = Literal["object", "cluster"]

DEFAULT_IMAGE_SIZE = 224
DIFFERENCES_NAMED = 3
NAME = "orbit"


class Orbit:
    """ORBIT as one suite of two sources, ``clean`` and ``clutter``."""

    embedded = False

    def __init__(
        self,
        image_size: int | None,
        data_dir: Path | None,
        *,
        version: Version = "2021",
        mode: Mode = "both",
        caps: CapsName = "lite",
        train_labels: TrainLabels = "object",
    ) -> None:
        """Open the data.

        Args:
            image_size: side of the frames in pixels; by default 224.
            data_dir: folder with the frames (itself, or its ``orbit_benchmark_<image_size>``); the variable
                ORBIT_BENCHMARK_ROOT comes after it.
            version: ``2021``, behind Table 1 of the LITE paper, or ``2022``.
            mode: what to train, validate and test on; to train, one of the two.
            caps: on training tasks: ``84`` as the published models at 84 pixels had them, ``lite`` for all others.
            train_labels: of training tasks: the user's objects, or the clusters of like objects of all users as classes
                of a plain classifier (how the published FineTuner at 84 pixels was pre-trained).

        Raises:
            UsageError: the version has no such caps, or the image size is too small.
            DataError: there is no data of this size, or it is damaged.
        """
        if version == "2022" and caps != "lite":
            raise UsageError(f"-S caps={caps} belongs to version 2021; leave it out, or give -S version=2021.")
        self._image_size = check_image_size(image_size, DEFAULT_IMAGE_SIZE)
        root = find_root(self._image_size, data_dir)
        if root is None:
            raise DataError(missing_root(self._image_size, data_dir))
        self._data = open_dataset(root)
        self._rules: Rules = rules(version, caps)
        self._filters = version == "2022"
        self._sources: tuple[Kind, ...] = KINDS if mode == "both" else (mode,)
        self._labels = train_labels
        self._train_suffix = suffix(caps=caps, labels=train_labels)
        other = not self._data.synthetic and self._data.differences
        self._id = suite_id(NAME, version, Orbit, {}) + ("+data=other" if other else "")
        self._shown: dict[str, Positions] = {}
        self._candidates: dict[tuple[Split, Kind, str], tuple[Candidate, ...]] = {}

    @staticmethod
    def configured(data_dir: Path | None) -> str | None:
        """Say where frames were found, and of which sizes."""
        found = [f"frames of {size} pixels in {root}" for size, root in found_roots(data_dir).items()]
        return " and ".join(found) or None

    @property
    def id(self) -> str:
        """Name and version, and whether the data is other than published."""
        return self._id

    @property
    def image_size(self) -> int:
        """Side of the frames in pixels."""
        return self._image_size

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the version reports."""
        return self._rules.metrics

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """None: the protocol has no mean over its modes."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the test split.

        Of the published benchmark it is over the videos' names and numbers of frames, which releases of all sizes have
        in common, because results at 84 and at 224 pixels are compared; of other data it is that of `Dataset`.
        """
        if self._data.synthetic or self._data.differences:
            return self._data.fingerprints["test"]
        digest = hashlib.sha256()
        for user, objects in self._data.users.get("test", {}).items():
            for each in objects:
                for video in (*each.clean, *each.clutter):
                    digest.update(os.fsencode(f"{user}/{each.name}/{video.name} {video.n_frames}\n"))
        return digest.hexdigest()

    def class_splits(self) -> dict[Split, list[str]]:
        """List the users of each split."""
        return {split: list(users) for split, users in self._data.users.items()}

    @cached_property
    def source_data(self) -> dict[str, SourceData]:
        """What was found of each source to test on."""
        return {source: self._found(source, "test") for source in self._sources}

    @cached_property
    def train_data(self) -> dict[str, SourceData]:
        """What was found of each source to train on."""
        own = SourceData(self._data.fingerprints["train"], self._data.synthetic)
        if not self._data.users.get("train"):
            own = SourceData(missing=self._no_users("train"))
        return dict.fromkeys(self._sources, own)

    def _found(self, source: Kind, split: Split) -> SourceData:
        """Look at the data of a source; in version 2022, at all annotations that decide what is classified."""
        try:
            self._users(split, source)
            fingerprint = self._digest(source, split) if self._filters else self.fingerprint
        except DataError as error:
            return SourceData(missing=str(error))
        return SourceData(fingerprint, self._data.synthetic)

    def _digest(self, source: Kind, split: Split) -> str:
        """Hash the data together with the frames that count of each video that is classified."""
        digest = hashlib.sha256(self.fingerprint.encode())
        frames = self._frames_of(split)
        for user in self._data.users[split]:
            for each in self._candidates_of(split, source, user):
                for video in each.target:
                    digest.update(
                        f"{video.name} {hashlib.sha256(frames(video).astype('<i8').tobytes()).hexdigest()}\n".encode()
                    )
        return digest.hexdigest()

    def _no_users(self, split: Split) -> str:
        return (
            f"{self._data.root} has no folder {split}, or no users in it; get that part of the data, "
            f"see `lite-bench data status {NAME}`."
        )

    @property
    def notes(self) -> list[str]:
        """What is missing, how the data differs from what is published, and whether it is a stand-in."""
        notes = [f"Nothing can be tested on {names}: {why}" for why, names in missing(self.source_data)]
        if len(self._sources) == 1:  # with two there is no training
            notes += [f"A training has no validation on {names}: {why}" for why, names in missing(self._validation)]
        if self._id.endswith("other"):
            named = " ".join(self._data.differences[:DIFFERENCES_NAMED])
            more = len(self._data.differences) - DIFFERENCES_NAMED
            rest = f" ({more} more differences: `lite-bench data verify {NAME}`.)" if more > 0 else ""
            notes.append(
                f"{self._data.root} is not the published benchmark, so that results on it have a column of their own, "
                f"{self._id}: {named}{rest}"
            )
        if self._labels == "cluster":
            notes.append(
                f"Training tasks ask for {len(cluster_ranks())} kinds of objects, most of which their support sets "
                "lack: only a learner with a classifier of its own for all of them can be trained."
            )
        if self._data.synthetic:
            notes.append("Stand-in data: this shows that everything runs, and says nothing about the real benchmark.")
        return notes

    @cached_property
    def _validation(self) -> dict[Kind, SourceData]:
        return {source: self._found(source, "validation") for source in self._sources}

    def train_task(self, index: int, seed: int) -> Task:
        """Name a training task; in each epoch, every user has the same number of tasks (50), in random order.

        Raises:
            UsageError: there are two modes, each of which has a model of its own.
            DataError: there are no users to train on.
        """
        if len(self._sources) > 1:
            raise UsageError(
                "Training needs one mode: each has a model of its own; give -S mode=clean or -S mode=clutter."
            )
        self._users("train", self._sources[0])
        return Task(self._id, self._sources[0] + self._train_suffix, "train", index, seed)

    def tasks(self, split: Split, seed: int = 0) -> Mapping[str, Sequence[Task]]:
        """List the tasks of ``validation`` (the sources that are there) or ``test`` (all), user by user."""
        there = [source for source in self._sources if split == "test" or not self._validation[source].missing]
        return {source: self._list(source, split, seed) for source in there}

    def _list(self, source: Kind, split: Split, seed: int) -> list[Task]:
        missing = split == "test" and self.source_data[source].missing
        # Which users have enough frames is unknown without annotations; all of the published benchmark have.
        there = list(self._data.users.get(split, ())) or list(published_users()[split])
        users = there if missing else self._users(split, source)
        n = len(users) * self._rules.tasks_per_user[split]
        return [Task(self._id, source, split, index, seed) for index in range(n)]

    def episode(self, task: Task) -> Episode:
        """Make the episode of ``task``; the frames to classify are decoded while they are gone through.

        Raises:
            UsageError: the task is of another suite, version or options.
            DataError: its data is missing or damaged.
        """
        user, plan = self.plan(task)
        if task.split != "train":
            query_id = "" if self._filters else str(self._first_of_user(task))
            return evaluation_episode(task, plan, self._load, user, self._rules.window, query_id)
        if self._labels == "object":
            return training_episode(task, plan, self._load, user)
        clusters = [cluster_of(user, each) for each in plan.objects]
        return pretraining_episode(task, plan, self._load, user, clusters, len(cluster_ranks()))

    def plan(self, task: Task) -> tuple[str, Plan]:
        """Draw what ``task`` consists of; no frame is read.

        Returns:
            the user, and the objects, clips and frames.

        Raises:
            UsageError: the task is of another suite, version or options, or there is no task of its number.
            DataError: the user has too few objects, or annotations are missing.
        """
        suffix = self._train_suffix if task.split == "train" else ""
        check_task(task, self._id, [source + suffix for source in self._sources])
        source = next(source for source in self._sources if task.source == source + suffix)
        user = self._user_of(task, source)
        found = self._candidates_of(task.split, source, user)
        if task.split == "train":
            return user, train_plan(found, self._rules, task_generator(task, "plan"))
        shared = task if self._filters else self._first_of_user(task)
        generators = task_generator(task, "context"), task_generator(shared, "target")
        return user, evaluation_plan(found, self._rules, *generators, self._frames_of(task.split))

    def _user_of(self, task: Task, source: Kind) -> str:
        users, per_user = self._users(task.split, source), self._rules.tasks_per_user[task.split]
        if task.split == "train":
            return users[train_user(task.index, task.seed, len(users), per_user)]
        if task.index >= len(users) * per_user:
            raise UsageError(
                f"There is no task {task}: the {task.split} split has {len(users)} users and {per_user} tasks of each."
            )
        return users[task.index // per_user]

    def _first_of_user(self, task: Task) -> Task:
        """Give the first of the tasks of the user of ``task``, from which all of them have the target set."""
        per_user = self._rules.tasks_per_user[task.split]
        return Task(task.suite, task.source, task.split, task.index // per_user * per_user, task.seed)

    def _users(self, split: Split, source: Kind) -> list[str]:
        """List the users of a split who have objects to take, in order of name.

        Raises:
            DataError: there are none, or one has too few objects.
        """
        found = {user: len(self._candidates_of(split, source, user)) for user in self._data.users.get(split, ())}
        users = [user for user, n in found.items() if n]
        if not found:
            raise DataError(self._no_users(split))
        if not users:
            raise DataError(f"No {source} video in {self._data.root / split} has enough frames; get longer videos.")
        if few := [user for user in users if found[user] < MIN_WAY]:
            raise DataError(
                f"User {few[0]} in {self._data.root / split} has one object to recognise in {source} videos, "
                f"and a task needs {MIN_WAY}; add objects, or remove the user's folder."
            )
        return users

    def _candidates_of(self, split: Split, source: Kind, user: str) -> tuple[Candidate, ...]:
        """Give what tasks of a user may take; two threads may both make it the first time."""
        key = split, source, user
        if key not in self._candidates:
            objects = self._data.users[split][user]
            self._candidates[key] = candidates(objects, source, self._rules, self._frames_of(split))
        return self._candidates[key]

    def _frames_of(self, split: Split) -> FramesOf:
        """Say which frames of target videos count: in evaluations of version 2022, those that show the object."""
        if not self._filters or split == "train":
            return all_frames
        return functools.partial(self._frames_with_object, split)

    def _frames_with_object(self, split: Split, video: Video) -> Positions:
        if video.name not in self._shown:
            self._shown[video.name] = np.flatnonzero(frames_with_object(self._data.root, split, video))
        return self._shown[video.name]

    def _load(self, wanted: Sequence[tuple[Video, int]]) -> np.ndarray:
        return read_frames(wanted, self._image_size)

    def predictions(self, tasks: Predictions, macs: Macs) -> dict[str, Any]:
        """Bring predicted classes and costs into the form of the ORBIT challenge; see `challenge_file`.

        Args:
            tasks: predicted class of every frame in order, by video, by task.
            macs: multiply-accumulates of adapting as published costs count them, by task.

        Raises:
            UsageError: the tasks are of two modes or of another suite.
            DataError: predictions do not fit their task.
        """
        return challenge_file(tasks, macs, self.plan)


def missing(found: Mapping[Any, SourceData]) -> list[tuple[str, str]]:
    """List why sources cannot be used, each reason once and with the sources' names."""
    reasons: dict[str, list[str]] = {}
    for name, data in found.items():
        if data.missing:
            reasons.setdefault(data.missing, []).append(name)
    return [(reason, " and ".join(names)) for reason, names in reasons.items()]


def suffix(*, caps: CapsName, labels: TrainLabels) -> str:
    """Say in the name of a training source what makes its tasks other than the standard ones."""
    changed = {"caps": caps if caps != "lite" else "", "labels": labels if labels != "object" else ""}
    return "".join(f"+{name}={value}" for name, value in changed.items() if value)


@functools.cache
def cluster_ranks() -> dict[int, int]:
    """Number the published clusters of the objects of all training users: cluster -> 0..99."""
    clusters = {each.cluster for objects in published_users()["train"].values() for each in objects}
    return {cluster: rank for rank, cluster in enumerate(sorted(clusters))}


def cluster_of(user: str, each: UserObject) -> int:
    """Give the class of an object of a training user among the published clusters, 0..99.

    Raises:
        DataError: it is not published.
    """
    token = each.clean[0].token
    for published in published_users()["train"].get(user, ()):
        if published.token == token:
            return cluster_ranks()[published.cluster]
    raise DataError(
        f"No cluster is published for the object {each.name!r} of user {user}; train with -S train_labels=object."
    )
