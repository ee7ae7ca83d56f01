"""A tree against the published benchmark, and the published benchmark against the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lite_bench.datasets.orbit.data import published_counts
from lite_bench.datasets.orbit.differences import differences
from lite_bench.datasets.orbit.published import SPLITS, PublishedObject, published_users
from lite_bench.datasets.orbit.videos import Kind, UserObject, Video
from lite_bench.harness.core import Split
from tests.datasets.orbit.trees import video_name

Users = dict[Split, dict[str, list[UserObject]]]


def make_object(user: str, known: PublishedObject) -> UserObject:
    """A published object with spaces in its folder's name; the frames of clean videos are not published."""
    name = known.token.replace("-", " ")

    def videos(kind: Kind, frames: list[int]) -> tuple[Video, ...]:
        names = sorted(video_name(user, known.token, kind, number) for number in range(len(frames)))
        return tuple(Video(video, kind, Path(video), count) for video, count in zip(names, frames, strict=True))

    clutter = [frames for frames, _ in known.clutter]
    return UserObject(name, videos("clean", [300] * known.clean), videos("clutter", clutter))


@pytest.fixture
def benchmark() -> Users:
    return {
        split: {user: [make_object(user, each) for each in objects] for user, objects in of_split.items()}
        for split, of_split in published_users().items()
    }


def test_the_benchmark_does_not_differ_from_itself(benchmark: Users) -> None:
    assert differences(benchmark, synthetic=False) == ()
    for split in SPLITS:
        assert differences({split: benchmark[split]}, synthetic=False) == ()
    assert differences({}, synthetic=False) == ()


def of(benchmark: Users, name: str) -> tuple[list[UserObject], int]:
    objects = benchmark["test"]["P177"]
    return objects, [each.name for each in objects].index(name)


def remove_a_user(benchmark: Users) -> None:
    del benchmark["test"]["P204"]


def add_a_user(benchmark: Users) -> None:
    benchmark["test"]["P000"] = []


def swap_users(benchmark: Users) -> None:
    benchmark["train"]["P177"] = benchmark["test"].pop("P177")


def remove_an_object(benchmark: Users) -> None:
    objects, number = of(benchmark, "tv remote")
    del objects[number]


def rename_an_object(benchmark: Users) -> None:
    objects, number = of(benchmark, "tv remote")
    objects[number] = make_object("P177", replace(published_users()["test"]["P177"][number], token="radio"))


def remove_clean(benchmark: Users) -> None:
    objects, number = of(benchmark, "tv remote")
    objects[number] = replace(objects[number], clean=objects[number].clean[1:])


def add_clutter(benchmark: Users) -> None:
    objects, number = of(benchmark, "tv remote")
    each = objects[number]
    objects[number] = replace(
        each, clutter=(*each.clutter, replace(each.clutter[0], name="P177--tv-remote--clutter--z"))
    )


def shorten_clutter(benchmark: Users) -> None:
    objects, number = of(benchmark, "tv remote")
    first, *others = objects[number].clutter
    objects[number] = replace(objects[number], clutter=(replace(first, n_frames=3), *others))


def mix_objects(benchmark: Users) -> None:
    objects, number = of(benchmark, "tv remote")
    stray = objects[number - 1].clean[0]
    objects[number] = replace(objects[number], clean=(*objects[number].clean[1:], stray))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove_a_user, ["test/P204: this user of the benchmark is missing."]),
        (add_a_user, ["test/P000: the benchmark has no such user in this split."]),
        (
            swap_users,
            [
                "train/P177: the benchmark has no such user in this split.",
                "test/P177: this user of the benchmark is missing.",
            ],
        ),
        (remove_an_object, ["test/P177/tv-remote: this object of the benchmark is missing."]),
        (
            rename_an_object,
            [
                "test/P177/radio: the benchmark's user has no object radio.",
                "test/P177/tv-remote: this object of the benchmark is missing.",
            ],
        ),
        (remove_clean, ["test/P177/tv remote: has {clean_less} clean videos, and the benchmark's has {clean}."]),
        (add_clutter, ["test/P177/tv remote: has {clutter_more} clutter videos, and the benchmark's has {clutter}."]),
    ],
)
def test_differences_are_named(benchmark: Users, change: Callable[[Users], None], expected: list[str]) -> None:
    (known,) = [each for each in published_users()["test"]["P177"] if each.token == "tv-remote"]
    counts = {
        "clean": known.clean,
        "clean_less": known.clean - 1,
        "clutter": len(known.clutter),
        "clutter_more": len(known.clutter) + 1,
    }
    change(benchmark)
    assert list(differences(benchmark, synthetic=False)) == [text.format(**counts) for text in expected]


def test_frames_of_clutter_videos_count_unless_in_a_stand_in(benchmark: Users) -> None:
    shorten_clutter(benchmark)
    (text,) = differences(benchmark, synthetic=False)
    assert text.startswith("test/P177/tv remote: P177--tv-remote--clutter--")
    assert "has 3 frames, and the benchmark's has" in text
    assert differences(benchmark, synthetic=True) == ()


def test_a_folder_of_two_objects_is_named(benchmark: Users) -> None:
    mix_objects(benchmark)
    texts = differences(benchmark, synthetic=False)
    assert any("this folder mixes videos of the objects" in text for text in texts)
    assert any("are also in the folder" in text for text in texts)


# --- protocol, section 7


def test_the_published_counts_are_those_of_the_protocol() -> None:
    assert [published_counts(split) for split in SPLITS] == [(44, 278, 2277), (6, 50, 347), (17, 158, 1198)]
    objects = {split: [each for of_user in published_users()[split].values() for each in of_user] for split in SPLITS}
    assert [sum(each.clean for each in objects[split]) for split in SPLITS] == [1814, 284, 898]
    assert [sum(len(each.clutter) for each in objects[split]) for split in SPLITS] == [463, 63, 300]
    frames = [[video for each in objects[split] for video in each.clutter] for split in SPLITS]
    assert [sum(count for count, _ in each) for each in frames] == [228_116, 25_684, 123_459]
    assert [sum(absent for _, absent in each) for each in frames] == [10_995, 163, 8_904]
    assert [sum(count > 1000 for count, _ in each) for each in frames] == [12, 0, 11]
    every = [each for of_split in objects.values() for each in of_split]
    assert min(each.clean for each in every) == 2
    assert min(len(each.clutter) for each in every) == 1
    clusters = {split: {each.cluster for each in objects[split]} for split in SPLITS}
    assert [len(clusters[split]) for split in SPLITS] == [100, 36, 67]
    everywhere = set().union(*clusters.values())
    assert everywhere == set(range(127)) - {1, 84, 118, 119}
    assert len(clusters["test"] - clusters["train"]) == 16
    assert len(clusters["validation"] - clusters["train"]) == 11


def test_the_published_users_stand_out_as_in_the_protocol() -> None:
    users = {user: objects for of_split in published_users().values() for user, objects in of_split.items()}
    assert len(users) == 67
    assert [user for user, objects in users.items() if any(each.clean > 15 for each in objects)] == ["P587"]
    assert sum(len(each.clutter) for each in users["P204"]) == 89
    assert [len(users[user]) for user in ("P642", "P753", "P554")] == [13, 13, 5]
