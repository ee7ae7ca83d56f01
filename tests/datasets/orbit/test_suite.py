"""The suite on a small tree of files: names, tasks, episodes, streams, predictions, and what may be wrong."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lite_bench.datasets.orbit import suite as suite_module
from lite_bench.datasets.orbit.challenge import short
from lite_bench.datasets.orbit.episodes import FrameStream
from lite_bench.datasets.orbit.sampling import Clip
from lite_bench.datasets.orbit.scan import open_dataset
from lite_bench.datasets.orbit.suite import Orbit, cluster_of, cluster_ranks
from lite_bench.datasets.orbit.videos import KINDS, UserObject, Video
from lite_bench.harness.core import GROUP_METRICS, Episode, QueryBatch, Split, Task
from lite_bench.harness.errors import DataError, UnknownNameError, UsageError
from lite_bench.harness.options import check_options
from tests.datasets.orbit.made_up import SIDE, TREE, shows_object, video, write_annotations, write_tree

GOLDEN_USERS = ("P100", "P106", "P106", "P106", "P106", "P100", "P106", "P100")
GOLDEN_OBJECTS = [["front door", "hole-punch", "scissors"], *[["dog toy", "fridge"]] * 3]
GOLDEN_CLIPS = [(0, 0), (2, 1), (1, 0), (2, 8), (0, 6), (2, 0)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree without annotations; do not write to it."""
    return write_tree(tmp_path_factory.mktemp("orbit") / f"orbit_benchmark_{SIDE}")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with annotations of the clutter videos; do not write to it."""
    root = write_tree(tmp_path_factory.mktemp("annotated") / f"orbit_benchmark_{SIDE}")
    write_annotations(root, "test", "clutter")
    write_annotations(root, "validation", "clutter")
    return root


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("LITE_BENCH_HOME", str(tmp_path_factory.getbasetemp() / "home"))


def pixels(clip: Clip) -> list[torch.Tensor]:
    """Decode the frames of a clip one by one, uint8 [3, S, S] each."""
    images = [Image.open(clip.video.folder / f"{clip.video.name}-{p + 1:05d}.jpg") for p in clip.positions]
    return [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]


def queries(episode: Episode) -> QueryBatch:
    batches = list(episode.query)
    groups = [batch.groups for batch in batches if batch.groups is not None]
    return QueryBatch(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        torch.cat(groups) if groups else None,
    )


def same(a: Episode, b: Episode) -> bool:
    return (
        torch.equal(a.support.images, b.support.images)
        and torch.equal(a.support.labels, b.support.labels)
        and torch.equal(queries(a).images, queries(b).images)
        and torch.equal(queries(a).labels, queries(b).labels)
    )


# --- names and lists of tasks


def test_names(tree: Path) -> None:
    suite = Orbit(SIDE, tree)
    assert suite.id == "orbit@2021+data=other"
    assert Orbit(SIDE, tree, version="2022").id == "orbit@2022+data=other"
    assert suite.image_size == SIDE
    assert suite.groups == {}
    assert suite.metrics == GROUP_METRICS
    assert Orbit(SIDE, tree, version="2022").metrics == ("frame accuracy",)
    assert suite.class_splits() == {split: sorted(users) for split, users in TREE.items()}
    assert suite.fingerprint == open_dataset(tree).fingerprints["test"]
    assert suite.train_data["clean"].fingerprint == open_dataset(tree).fingerprints["train"]
    assert not Orbit.embedded
    given = {"version": "2022", "mode": "clean", "caps": "lite", "train_labels": "cluster"}
    assert check_options(Orbit, given, "suite 'orbit'", "-S") == given
    with pytest.raises(UsageError, match="mode=pan"):
        check_options(Orbit, {"mode": "pan"}, "suite 'orbit'", "-S")


def test_published_data_and_stand_ins_have_the_plain_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tree: Path
) -> None:
    other = Orbit(SIDE, tree)
    assert "is not the published benchmark" in other.notes[0]
    assert "orbit@2021+data=other: " in other.notes[0]
    assert "more differences" in other.notes[0]
    assert not any(data.synthetic for data in other.source_data.values())
    with monkeypatch.context() as context:
        context.setattr(suite_module, "open_dataset", lambda root: replace(open_dataset(root), differences=()))
        assert Orbit(SIDE, tree).id == "orbit@2021"
        assert Orbit(SIDE, tree).notes == []
    root = tmp_path / f"orbit_benchmark_{SIDE}"
    shutil.copytree(tree, root)
    (root / "synthetic.json").write_text("{}")
    standin = Orbit(SIDE, tmp_path)
    assert standin.id == "orbit@2021"
    assert "Stand-in data" in standin.notes[-1]
    assert all(data.synthetic for data in (*standin.source_data.values(), *standin.train_data.values()))


def test_published_frames_of_all_sizes_have_one_fingerprint_and_others_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tree: Path
) -> None:
    def seen(folder: Path) -> set[str]:
        suite = Orbit(SIDE, folder)
        return {suite.fingerprint, *(data.fingerprint for data in suite.source_data.values())}

    shutil.copytree(tree, tmp_path / "other")
    for frame in (tmp_path / "other").rglob("*-00001.jpg"):
        frame.write_bytes(frame.read_bytes() + b"\0")
    shutil.copytree(tree / "test", tmp_path / "tests" / "test")
    assert seen(tree) == seen(tmp_path / "tests")
    assert seen(tree).isdisjoint(seen(tmp_path / "other"))
    monkeypatch.setattr(suite_module, "open_dataset", lambda root: replace(open_dataset(root), differences=()))
    assert len({value for root in (tree, tmp_path / "other", tmp_path / "tests") for value in seen(root)}) == 1
    other = tmp_path / "other" / "test" / "P177"
    (other / "my mug").rename(other / "a mug")
    assert seen(tmp_path / "other").isdisjoint(seen(tree))


def test_the_data_folder_may_be_named_in_several_ways(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    assert Orbit.configured(None) is None
    assert "16" in (Orbit.configured(tree.parent) or "")
    monkeypatch.setenv("ORBIT_BENCHMARK_ROOT", str(tree))
    assert str(tree) in (Orbit.configured(None) or "")
    assert Orbit(SIDE, None).fingerprint == Orbit(SIDE, tree.parent).fingerprint


@pytest.mark.parametrize(("version", "n_test", "n_validation"), [("2021", 5, 5), ("2022", 50, 15)])
def test_tasks_are_listed_user_by_user(annotated: Path, version: Any, n_test: int, n_validation: int) -> None:
    suite = Orbit(SIDE, annotated, version=version, mode="clutter")
    tasks = suite.tasks("test", 3)["clutter"]
    assert [str(task) for task in tasks[:2]] == [f"{suite.id}/clutter/test/{index}?seed=3" for index in range(2)]
    assert [suite.plan(task)[0] for task in tasks] == ["P177"] * n_test + ["P198"] * n_test
    assert len(suite.tasks("validation")["clutter"]) == n_validation
    assert suite.plan(suite.tasks("validation")["clutter"][0])[0] == "P189"


def test_modes_are_sources(tree: Path) -> None:
    assert list(Orbit(SIDE, tree).tasks("test")) == ["clean", "clutter"]
    assert list(Orbit(SIDE, tree, mode="clean").tasks("test")) == ["clean"]
    assert list(Orbit(SIDE, tree, mode="clutter").tasks("validation")) == ["clutter"]
    assert list(Orbit(SIDE, tree, mode="clutter").source_data) == ["clutter"]


def test_training_tasks_say_how_they_differ_from_the_standard(tree: Path) -> None:
    names = {
        (caps, labels): Orbit(SIDE, tree, mode="clean", caps=caps, train_labels=labels).train_task(4, 9)
        for caps in ("lite", "84")
        for labels in ("object", "cluster")
    }
    assert [task.source for task in names.values()] == [
        "clean",
        "clean+labels=cluster",
        "clean+caps=84",
        "clean+caps=84+labels=cluster",
    ]
    assert all(Task.parse(str(task)) == task for task in names.values())
    with pytest.raises(UnknownNameError, match="train source of orbit@2021"):
        Orbit(SIDE, tree, mode="clean").episode(names["84", "object"])
    assert list(Orbit(SIDE, tree, mode="clean", caps="84").tasks("test")) == ["clean"]


def test_an_epoch_has_50_tasks_of_each_user(tree: Path) -> None:
    suite = Orbit(SIDE, tree, mode="clutter")
    users = [suite.plan(suite.train_task(index, 0))[0] for index in range(200)]
    assert Counter(users[:100]) == Counter(users[100:]) == {"P100": 50, "P106": 50}
    assert users[:100] != users[100:]


# --- episodes


@pytest.mark.parametrize("mode", ["clean", "clutter"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_episode_is_what_its_plan_says(tree: Path, split: Split, mode: str) -> None:
    suite = Orbit(SIDE, tree)
    task = suite.tasks(split)[mode][3]
    (user, plan), episode = suite.plan(task), suite.episode(task)
    assert episode.support.images.shape == (len(plan.context), 8, 3, SIDE, SIDE)
    assert episode.support.images.dtype == torch.uint8
    assert episode.support.way == len(TREE[split][user])
    for images, label, clip in zip(episode.support.images, episode.support.labels, plan.context, strict=True):
        assert label == clip.label
        assert all(torch.equal(a, b) for a, b in zip(images, pixels(clip), strict=True))
    found = queries(episode)
    expected = [frame for each in plan.target for frame in pixels(each)]
    assert torch.equal(found.images, torch.stack(expected))
    assert found.groups is not None
    assert found.groups.tolist() == [i for i, each in enumerate(plan.target) for _ in each.positions]
    assert found.labels.tolist() == [each.label for each in plan.target for _ in each.positions]
    assert episode.n_query == len(expected)
    assert episode.groups == tuple(each.video.name for each in plan.target)
    assert (episode.window, episode.cluster) == (8, user)


def test_the_clean_target_videos_are_those_after_the_fifth_in_order_of_name(tree: Path) -> None:
    suite = Orbit(SIDE, tree)
    _, plan = suite.plan(suite.tasks("test")["clean"][0])
    assert [each.name for each in plan.objects] == ["-x", "cane", "my mug"]
    held_out = [("-x", 1), ("cane", 1), ("my-mug", 5), ("my-mug", 6)]
    sizes = [55, 16, 5, 51]
    assert [each.video.name for each in plan.target] == [
        video("P177", token, "clean", number, 1).name for token, number in held_out
    ]
    assert [len(each.positions) for each in plan.target] == [8 * (n // 8 + 1) for n in sizes]


def test_tasks_of_a_user_share_queries_and_say_so(tree: Path) -> None:
    suite = Orbit(SIDE, tree)
    episodes = {str(task): suite.episode(task) for tasks in suite.tasks("test").values() for task in tasks}
    by_id: dict[str, list[Episode]] = {}
    for episode in episodes.values():
        by_id.setdefault(episode.query_id, []).append(episode)
    assert sorted(map(len, by_id.values())) == [5, 5, 5, 5]
    for own in by_id.values():
        assert all(torch.equal(queries(each).images, queries(own[0]).images) for each in own)
        assert len({each.support.images.numpy().tobytes() for each in own}) == 5
    assert len({episode.cluster for episode in episodes.values()}) == 2


@pytest.mark.parametrize("version", ["2021", "2022"])
def test_a_training_episode_is_what_its_plan_says(tree: Path, version: Any) -> None:
    suite = Orbit(SIDE, tree, version=version, mode="clutter")
    task = suite.train_task(5, 1)
    (user, plan), episode = suite.plan(task), suite.episode(task)
    found = queries(episode)
    form = (8, 3, SIDE, SIDE) if version == "2021" else (3, SIDE, SIDE)
    for images, labels, clips in (
        (episode.support.images, episode.support.labels, plan.context),
        (found.images, found.labels, plan.target),
    ):
        assert images.shape == (len(clips), *form)
        assert labels.tolist() == [clip.label for clip in clips]
        frames = torch.stack([frame for clip in clips for frame in pixels(clip)])
        assert torch.equal(images.reshape(frames.shape), frames)
    assert (episode.groups, episode.window, episode.query_id) == ((), 1, "")
    assert (episode.cluster, episode.n_query) == (user, len(plan.target))
    assert found.groups is None


def test_pretraining_asks_for_clusters(tree: Path) -> None:
    suite = Orbit(SIDE, tree, mode="clutter", train_labels="cluster")
    raw = json.loads(files("lite_bench.datasets.orbit").joinpath("published.json").read_text())["users"]["train"]
    ids = sorted({entry[0] for objects in raw.values() for entry in objects.values()})
    assert len(ids) == len(cluster_ranks()) == 100
    assert cluster_ranks() == {cluster: ids.index(cluster) for cluster in ids}
    for index in range(6):
        task = suite.train_task(index, 0)
        (user, plan), episode = suite.plan(task), suite.episode(task)
        own = [ids.index(raw[user][each.name.replace(" ", "-")][0]) for each in plan.objects]
        found, n = queries(episode), len(plan.context)
        assert episode.support.way == 100
        assert found.labels.tolist() == [own[clip.label] for clip in (*plan.context, *plan.target)]
        assert torch.equal(found.images[:n], episode.support.images)
        assert torch.equal(found.labels[:n], episode.support.labels)
        assert episode.n_query == n + len(plan.target) == len(found.images)
    test = suite.episode(suite.tasks("test")["clutter"][0])
    assert test.support.way == 3
    assert any("Training tasks ask for 100 kinds of objects" in note for note in suite.notes)


def test_an_object_without_a_published_cluster_is_refused() -> None:
    unknown = UserObject("my sofa", (video("P100", "my-sofa", "clean", 0, 9),), ())
    with pytest.raises(DataError, match=r"No cluster is published for the object 'my sofa' of user P100; .*=object"):
        cluster_of("P100", unknown)
    with pytest.raises(DataError, match="of user P000"):
        cluster_of("P000", unknown)


def test_episodes_depend_on_their_task_alone(tree: Path) -> None:
    suite = Orbit(SIDE, tree, mode="clean")
    tasks = [*suite.tasks("test")["clean"][::3], *suite.tasks("validation")["clean"][:2], suite.train_task(3, 0)]
    first = [suite.episode(task) for task in tasks]
    again = Orbit(SIDE, tree, mode="clean")
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(again.episode, reversed(tasks)))
        assert all(pool.map(same, first, reversed(others)))
    assert not same(suite.episode(suite.train_task(0, 0)), suite.episode(suite.train_task(0, 1)))
    both = Orbit(SIDE, tree)
    assert same(both.episode(tasks[0]), first[0])


# --- streams


class Meter:
    """Makes frames that say their position, and counts those that were asked for."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.fail_at = fail_at

    def __call__(self, wanted: Sequence[tuple[Video, int]]) -> np.ndarray:
        self.asked.append(len(set(wanted)))
        positions = np.array([position for _, position in wanted])
        if self.fail_at in positions:
            raise DataError("a frame is damaged")
        return np.broadcast_to(positions[:, None, None, None] % 256, (len(wanted), 3, 4, 4)).astype(np.uint8)


def long_videos(*lengths: int) -> list[Clip]:
    clips = []
    for number, n in enumerate(lengths):
        positions = tuple(min(i, n - 1) for i in range(8 * (n // 8 + 1)))
        clips.append(Clip(video("P1", "mug", "clutter", number, n), positions, number))
    return clips


def test_a_stream_holds_no_more_than_two_batches() -> None:
    meter = Meter()
    given = 0
    for batch in FrameStream(long_videos(1000, 3, 500), meter):
        assert sum(meter.asked) - given <= 2 * 64
        given += len(batch.labels)
    assert given == 1008 + 8 + 504
    assert max(meter.asked) == 64
    assert sum(meter.asked) == 1000 + 3 + 500


def test_a_stream_never_parts_a_frame_from_its_repetitions() -> None:
    videos = long_videos(64, 128, 7)
    batches = list(FrameStream(videos, Meter()))
    seen: Counter[tuple[int, int]] = Counter()
    for batch in batches:
        assert batch.groups is not None
        seen.update(
            {(int(group), int(image[0, 0, 0])) for group, image in zip(batch.groups, batch.images, strict=True)}
        )
    assert set(seen.values()) == {1}
    assert [len(batch.labels) for batch in batches] == [72, 64, 72, 8]


def test_a_stream_can_be_left_and_begun_anew() -> None:
    stream = FrameStream(long_videos(400), Meter())
    before = threading.active_count()
    iterator: Iterator[QueryBatch] = iter(stream)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]  # it is a generator
    for thread in threading.enumerate():
        if thread.name.startswith("orbit-frames"):
            thread.join(5)
    assert threading.active_count() == before
    assert sum(len(batch.labels) for batch in stream) == 408


def test_a_damaged_frame_is_reported_when_its_turn_comes() -> None:
    iterator = iter(FrameStream(long_videos(400), Meter(fail_at=100)))
    assert len(next(iterator).labels) == 64
    with pytest.raises(DataError, match="a frame is damaged"):
        next(iterator)


def test_a_damaged_file_is_named(tmp_path: Path, tree: Path) -> None:
    root = tmp_path / f"orbit_benchmark_{SIDE}"
    shutil.copytree(tree, root)
    suite = Orbit(SIDE, tmp_path, mode="clutter")
    task = suite.tasks("test")["clutter"][0]
    _, plan = suite.plan(task)
    path = plan.target[1].video.folder / plan.target[1].video.frame(77)
    path.write_bytes(path.read_bytes()[:300])
    episode = suite.episode(task)
    with pytest.raises(DataError, match=path.name):
        list(episode.query)


# --- version 2022


def test_frames_without_the_object_are_not_classified(annotated: Path) -> None:
    suite = Orbit(SIDE, annotated, version="2022", mode="clutter")
    for task in suite.tasks("test")["clutter"][::25]:
        (_, plan), episode = suite.plan(task), suite.episode(task)
        assert episode.support.images.shape == (len(plan.context), 3, SIDE, SIDE)
        assert (episode.window, episode.query_id) == (1, "")
        for each in plan.target:
            shown = [position for position, there in enumerate(shows_object(each.video.n_frames)) if there]
            assert list(each.positions) == shown
        expected = torch.stack([frame for each in plan.target for frame in pixels(each)])
        assert torch.equal(queries(episode).images, expected)
    names = {each.video.n_frames for task in suite.tasks("test")["clutter"] for each in suite.plan(task)[1].target}
    assert names == {57, 130, 50, 53, 72}  # of 52 frames 49 are left, and of 51 too; 40 are too few as they are
    assert [each.name for each in suite.plan(suite.tasks("test")["clutter"][-1])[1].objects] == ["cup", "dog lead"]


def test_missing_annotations_are_a_missing_source(tmp_path: Path, tree: Path, annotated: Path) -> None:
    suite = Orbit(SIDE, annotated, version="2022")
    assert suite.source_data["clutter"].fingerprint not in {"", suite.fingerprint}
    assert "annotations/test/P177--" in suite.source_data["clean"].missing
    assert "Nothing can be tested on clean: The annotations " in suite.notes[0]
    assert not any("no validation" in note for note in suite.notes)  # there is no training with two modes
    clean = Orbit(SIDE, annotated, version="2022", mode="clean")
    assert "A training has no validation on clean: The annotations " in clean.notes[1]
    assert list(suite.tasks("validation")) == ["clutter"]
    bare = Orbit(SIDE, tree, version="2022", mode="clutter")
    assert "are missing; get orbit_extra_annotations.zip" in bare.source_data["clutter"].missing
    assert bare.tasks("validation") == {}
    assert len(bare.tasks("test")["clutter"]) == 100  # as many as when the annotations are there
    with pytest.raises(DataError, match=r"annotations/test/P177--.* are missing"):
        bare.episode(bare.tasks("test")["clutter"][0])
    assert bare.episode(bare.train_task(0, 0)).n_query
    assert not Orbit(SIDE, tree).source_data["clean"].missing


def test_annotations_are_part_of_the_data(tmp_path: Path, annotated: Path) -> None:
    root = tmp_path / f"orbit_benchmark_{SIDE}"
    shutil.copytree(annotated, root)
    before = Orbit(SIDE, tmp_path, version="2022", mode="clutter").source_data["clutter"].fingerprint
    assert before == Orbit(SIDE, annotated, version="2022", mode="clutter").source_data["clutter"].fingerprint
    path = next((root / "annotations" / "test").glob("P177--cane--*.json"))
    entries = json.loads(path.read_text())
    entries[next(iter(entries))] = {"object_not_present_issue": True}
    path.write_text(json.dumps(entries))
    assert Orbit(SIDE, tmp_path, version="2022", mode="clutter").source_data["clutter"].fingerprint != before


# --- predictions


def made_up_predictions(suite: Orbit, tasks: Sequence[Task]) -> dict[Task, dict[str, list[int]]]:
    predictions = {}
    for task in tasks:
        _, plan = suite.plan(task)
        way = len(plan.objects)
        predictions[task] = {each.video.name: [i % way for i in range(len(each.positions))] for each in plan.target}
    return predictions


def test_predictions_take_the_form_of_the_challenge(tree: Path) -> None:
    suite = Orbit(SIDE, tree)
    tasks = suite.tasks("test")["clutter"]
    macs = {tasks[0]: 2_646_503_674_264, tasks[1]: None, tasks[6]: 999_999}
    content = suite.predictions(made_up_predictions(suite, tasks[::-1]), macs)
    assert list(content) == ["P177", "P198"]
    assert [len(entries) for entries in content.values()] == [5, 5]
    entry = content["P177"][0]
    assert list(entry) == ["task_object_list", "task_videos", "task_macs_to_personalise"]
    assert [each["task_macs_to_personalise"] for each in content["P177"]] == ["2.65T", *[None] * 4]
    assert [each["task_macs_to_personalise"] for each in content["P198"]] == [None, "1000.00K", *[None] * 3]
    assert entry["task_object_list"] == ["-x", "cane", "my mug"]
    assert Counter(map(len, entry["task_videos"].values())) == Counter([50, 130, 52, 57])
    for numbers in entry["task_videos"].values():
        assert numbers == {number: (number - 1) % 3 for number in range(1, len(numbers) + 1)}
    assert json.loads(json.dumps(content))["P177"][0]["task_videos"]


def test_predictions_of_version_2022_know_their_frames(annotated: Path) -> None:
    suite = Orbit(SIDE, annotated, version="2022", mode="clutter")
    task = suite.tasks("test")["clutter"][0]
    videos = suite.predictions(made_up_predictions(suite, [task]), {})["P177"][0]["task_videos"]
    (of_cane,) = [numbers for name, numbers in videos.items() if "--cane--" in name]
    assert sorted(of_cane) == [*range(1, 3), *range(33, 131)]


def test_predictions_that_do_not_fit_are_refused(tree: Path) -> None:
    suite = Orbit(SIDE, tree)
    task, other = suite.tasks("test")["clutter"][0], suite.tasks("test")["clean"][0]
    good = made_up_predictions(suite, [task])
    name = next(iter(good[task]))
    with pytest.raises(UsageError, match="room for one mode, not for clean and clutter"):
        suite.predictions(good | made_up_predictions(suite, [other]), {})
    with pytest.raises(DataError, match=f"of {task} lack the video .*evaluate it again".replace("+", r"\+")):
        suite.predictions({task: {each: values for each, values in good[task].items() if each != name}}, {})
    with pytest.raises(DataError, match="hold the video another"):
        suite.predictions({task: good[task] | {"another": [0]}}, {})
    with pytest.raises(DataError, match=r"There are 3 predictions for the video .*, which has \d+ frames"):
        suite.predictions({task: good[task] | {name: [0, 0, 0]}}, {})
    with pytest.raises(DataError, match="hold the class 3, but its classes are 0 to 2"):
        suite.predictions({task: good[task] | {name: [3] * len(good[task][name])}}, {})
    with pytest.raises(UsageError, match="is not of suite"):
        suite.predictions({Task("orbit@2019", "clean", "test", 0): {}}, {})


@pytest.mark.parametrize("number", [0, 7, 999, 1000, 1001, 10**6, 123_456_789, 10**12, 3_177_000_000_000, 10**16])
def test_costs_are_written_as_the_counter_of_the_challenge_writes_them(number: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from thop import clever_format
    assert short(number) == clever_format(number)


# --- what may be wrong


def test_training_needs_one_mode(tree: Path) -> None:
    with pytest.raises(UsageError, match="give -S mode=clean or -S mode=clutter"):
        Orbit(SIDE, tree).train_task(0, 0)


def test_data_that_is_not_there(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(DataError, match="lite-bench data status orbit"):
        Orbit(None, None)
    with pytest.raises(DataError, match="32"):
        Orbit(32, tree)
    shutil.copytree(tree / "test", tmp_path / "tests" / "test")
    suite = Orbit(SIDE, tmp_path / "tests", mode="clean")
    assert len(suite.tasks("test")["clean"]) == 10
    assert suite.tasks("validation") == {}
    assert "no validation" in suite.notes[0]
    assert "has no folder train" in suite.train_data["clean"].missing
    with pytest.raises(DataError, match="has no folder train, or no users in it"):
        suite.train_task(0, 0)
    shutil.copytree(tree / "train", tmp_path / "training" / "train")
    suite = Orbit(SIDE, tmp_path / "training", mode="clean")
    assert "has no folder test" in suite.source_data["clean"].missing
    assert len(suite.tasks("test")["clean"]) == 85
    assert suite.train_task(0, 0).index == 0


@pytest.mark.parametrize("mode", ["clean", "clutter"])
def test_a_user_with_one_object_is_named(tmp_path: Path, tree: Path, mode: Any) -> None:
    root = tmp_path / f"orbit_benchmark_{SIDE}"
    shutil.copytree(tree, root)
    shutil.rmtree(root / "train" / "P106" / "fridge")
    suite = Orbit(SIDE, tmp_path, mode=mode)
    with pytest.raises(DataError, match=rf"User P106 in .*train has one object to recognise in {mode} videos, .*add"):
        suite.train_task(0, 0)


@pytest.mark.parametrize(("split", "user"), [("test", "P198"), ("validation", "P189")])
def test_a_user_with_one_object_makes_a_source_unusable(tmp_path: Path, tree: Path, split: Split, user: str) -> None:
    root = tmp_path / f"orbit_benchmark_{SIDE}"
    shutil.copytree(tree, root)
    for name in list(TREE[split][user])[1:]:
        shutil.rmtree(root / split / user / name)
    suite = Orbit(SIDE, tmp_path)
    notes = [note for mode in KINDS for note in Orbit(SIDE, tmp_path, mode=mode).notes]
    assert sum(f"User {user} in {root / split} has one object" in note for note in notes) == len(KINDS)
    assert all(bool(data.missing) == (split == "test") for data in suite.source_data.values())
    assert bool(suite.tasks("validation")) == (split == "test")


def test_version_2022_without_long_videos_is_a_missing_source(tmp_path: Path, annotated: Path) -> None:
    root = tmp_path / f"orbit_benchmark_{SIDE}"
    shutil.copytree(annotated, root)
    for user, objects in TREE["test"].items():
        for name, (_, counts) in objects.items():
            for place, n in enumerate(counts):
                made = video(user, name.replace(" ", "-"), "clutter", place, n)
                for position in range(49, n):
                    (root / "test" / user / name / "clutter" / made.name / made.frame(position)).unlink()
    suite = Orbit(SIDE, tmp_path, version="2022", mode="clutter")
    assert "No clutter video in" in suite.source_data["clutter"].missing


def test_options_and_tasks_that_do_not_exist(tree: Path) -> None:
    with pytest.raises(UsageError, match="-S caps=84 belongs to version 2021"):
        Orbit(SIDE, tree, version="2022", caps="84")
    with pytest.raises(UsageError, match="too small"):
        Orbit(4, tree)
    suite = Orbit(SIDE, tree, mode="clean")
    with pytest.raises(UsageError, match="is not of suite orbit@2021"):
        suite.episode(Task("orbit@2022", "clean", "test", 0))
    with pytest.raises(UnknownNameError, match="clutter"):
        suite.episode(Task(suite.id, "clutter", "test", 0))
    with pytest.raises(UsageError, match="the test split has 2 users and 5 tasks of each"):
        suite.episode(Task(suite.id, "clean", "test", 10))


def test_tasks_do_not_change(tree: Path) -> None:
    """Results name tasks by number: the same number must stay the same task, whatever the version of the program."""
    suite = Orbit(SIDE, tree, mode="clutter")
    users, plans = zip(*(suite.plan(suite.train_task(index, 0)) for index in range(8)), strict=True)
    assert users == GOLDEN_USERS
    assert [[each.name for each in plan.objects] for plan in plans[:4]] == GOLDEN_OBJECTS
    _, plan = suite.plan(suite.tasks("test")["clutter"][2])
    assert [(clip.label, clip.positions[0]) for clip in plan.context[:6]] == GOLDEN_CLIPS
