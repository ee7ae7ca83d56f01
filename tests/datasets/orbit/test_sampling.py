"""The sampler against the figures of the published protocol, closed forms, brute force and enumeration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from lite_bench.datasets.orbit.protocol import CapsName, Rules, Version, rules
from lite_bench.datasets.orbit.sampling import (
    Candidate,
    Clip,
    Plan,
    Positions,
    all_frames,
    candidates,
    draw,
    draw_clips,
    draw_some,
    evaluation_plan,
    every_nth,
    padded,
    split_videos,
    train_plan,
    train_user,
)
from lite_bench.datasets.orbit.videos import KINDS, Kind, UserObject, Video
from lite_bench.harness.core import Split
from tests.datasets.orbit.made_up import Users, frames_shown, published, video

USERS: dict[Split, Users] = {split: published(split) for split in ("train", "validation", "test")}
CAPS: tuple[CapsName, ...] = ("lite", "84")
SMALLEST_P = 1e-4
"""A chi-square test with fixed seeds fails below this."""


def generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key))


def found(split: Split, mode: Kind, version: Version = "2021") -> dict[str, tuple[Candidate, ...]]:
    """List the candidates of every user, in version 2022 with the published numbers of frames without the object."""
    shown = frames_shown(split) if version == "2022" and split != "train" else {}

    def frames(video: Video) -> Positions:
        return shown.get(video.name, all_frames(video))

    return {user: candidates(objects, mode, rules(version), frames) for user, objects in USERS[split].items()}


def evaluation(split: Split, mode: Kind, key: int = 0) -> dict[str, Plan]:
    return {
        user: evaluation_plan(own, rules("2021"), generator(key), generator(1))
        for user, own in found(split, mode).items()
    }


def of_video(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    grouped: dict[str, list[Clip]] = {}
    for clip in clips:
        grouped.setdefault(clip.video.name, []).append(clip)
    return grouped


# --- from a video to clips


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, 8), (7, 8), (8, 16), (9, 16), (63, 64), (64, 72), (999, 1000), (1000, 1008), (5000, 1008)],
)
def test_padded_lengths_are_the_published_ones(n: int, expected: int) -> None:
    frames = padded(np.arange(n)[:1000], 8)
    assert len(frames) == expected
    assert frames.tolist() == [min(position, min(n, 1000) - 1) for position in range(expected)]


@given(st.integers(1, 1300), st.sampled_from([1, 3, 4, 8, 15]), st.integers(0, 2**63 - 1))
def test_clips_are_different_aligned_windows_of_the_padded_and_filled_frames(n: int, k: int, key: int) -> None:
    clips = draw_clips(n, k, 8, generator(key))
    assert clips.shape == (k, 8)
    assert (np.diff(clips, axis=1) >= 0).all()
    considered = min(n, 1000)
    n_padded = 8 * (considered // 8 + 1)
    if n_padded >= 8 * k:
        starts = sorted(clips[:, 0].tolist())
        windows = [[min(start + i, considered - 1) for i in range(8)] for start in range(0, n_padded, 8)]
        assert all(row in windows for row in clips.tolist())
        # windows that begin within the original frames are known by their first frame; one may be padding alone
        assert all(a < b for a, b in pairwise(start for start in starts if start < considered - 1))
        return
    rows = sorted(clips.tolist())
    flat = [position for row in rows for position in row]
    assert flat == sorted(flat)
    padding = Counter(min(position, considered - 1) for position in range(n_padded))
    fill = Counter(flat) - padding
    assert fill + padding == Counter(flat)
    assert sum(fill.values()) == 8 * k - n_padded
    if 8 * k - n_padded <= considered:
        assert max(fill.values()) == 1


def test_fill_is_without_replacement_as_long_as_there_are_frames() -> None:
    # 8 frames make 2 windows; a third is filled with 8 frames, as many as there are
    for key in range(20):
        flat = np.sort(draw_clips(8, 3, 8, generator(key)), axis=None)
        assert Counter(flat.tolist()) == {**dict.fromkeys(range(7), 2), 7: 10}
    # 7 frames make 1 window; 16 are drawn from them, which cannot be without repeating some
    counts = [Counter(np.ravel(draw_clips(7, 3, 8, generator(key))).tolist()) for key in range(50)]
    assert len({tuple(sorted(count.items())) for count in counts}) > 40
    assert any(max(count[position] for position in range(6)) > 4 for count in counts)


def test_fill_is_uniform() -> None:
    counts = np.zeros(20)
    for key in range(2000):
        flat = np.ravel(draw_clips(20, 4, 8, generator(key)))
        counts += np.bincount(flat, minlength=20)
    counts -= 2000  # the frames themselves
    counts[19] -= 4 * 2000  # padding
    assert counts.sum() == 8 * 2000
    assert chisquare(counts).pvalue > SMALLEST_P


def test_windows_have_equal_chances_also_the_one_of_padding_alone() -> None:
    counts: Counter[int] = Counter()
    for key in range(3000):
        for row in draw_clips(64, 4, 8, generator(key)).tolist():
            counts[row[0] // 8 if row[0] < row[-1] else 8] += 1
    assert set(counts) == set(range(9))
    assert chisquare([counts[window] for window in range(9)]).pvalue > SMALLEST_P
    assert any([63] * 8 in draw_clips(64, 8, 8, generator(key)).tolist() for key in range(5))


def test_clips_are_of_the_first_1000_frames() -> None:
    last = max(int(draw_clips(3596, 8, 8, generator(key)).max()) for key in range(300))
    assert last == 999


# --- context and target videos


@pytest.mark.parametrize(
    ("n", "context", "target"), [(2, 1, 1), (3, 2, 1), (5, 4, 1), (6, 5, 1), (7, 5, 2), (44, 5, 39)]
)
def test_the_clean_split_is_the_first_five_videos_but_one_is_left(n: int, context: int, target: int) -> None:
    each = UserObject("mug", tuple(video("P1", "mug", "clean", i, 9) for i in range(n)), ())
    first, rest = split_videos(each, "clean")
    assert (len(first), len(rest)) == (context, target)
    assert first + rest == each.clean


def test_clutter_mode_takes_all_clean_videos_and_all_clutter_videos() -> None:
    for users in USERS.values():
        for objects in users.values():
            assert all(split_videos(each, "clutter") == (each.clean, each.clutter) for each in objects)


@pytest.mark.parametrize(
    ("split", "mode", "context", "target"),
    [
        ("test", "clean", 717, 181),
        ("test", "clutter", 898, 300),
        ("validation", "clean", 226, 58),
        ("validation", "clutter", 284, 63),
        ("train", "clean", 1187, 462),
        ("train", "clutter", 1599, 463),
    ],
)
def test_sums_of_videos(split: Split, mode: Kind, context: int, target: int) -> None:
    each = [each for own in found(split, mode).values() for each in own]
    assert sum(min(15, len(one.context)) for one in each) == context
    assert sum(min(15, len(one.target)) for one in each) == target


# --- validation and test tasks


@pytest.mark.parametrize(
    ("split", "mode", "mean", "least", "most", "n_target", "scores"),
    [
        ("test", "clean", 337.41, 144, 464, 181, 905),
        ("test", "clutter", 422.59, 184, 592, 300, 1500),
        ("validation", "clean", 301.33, 144, 408, 58, 290),
        ("validation", "clutter", 378.67, 184, 528, 63, 315),
    ],
)
def test_sizes_of_evaluation_tasks(
    split: Split, mode: Kind, mean: float, least: int, most: int, n_target: int, scores: int
) -> None:
    plans = evaluation(split, mode)
    sizes = [len(plan.context) for plan in plans.values()]
    assert round(float(np.mean(sizes)), 2) == mean
    assert (min(sizes), max(sizes)) == (least, most)
    assert sum(len(plan.target) for plan in plans.values()) == n_target
    assert n_target * rules("2021").tasks_per_user[split] == scores
    for user, plan in plans.items():
        assert plan.objects == USERS[split][user]
        grouped = of_video(plan.context)
        assert len(plan.context) == 8 * len(grouped)
        for clips in grouped.values():
            assert len(clips) == 8
            assert len({clip.positions for clip in clips}) == 8
            assert all(clip.positions[0] % 8 == 0 and len(clip.positions) == 8 for clip in clips)


def test_frames_per_task_and_users_named_in_the_protocol() -> None:
    plans = {mode: evaluation("test", mode) for mode in KINDS}
    means = {mode: 8 * np.mean([len(plan.context) for plan in own.values()]) for mode, own in plans.items()}
    assert {mode: round(float(mean), 2) for mode, mean in means.items()} == {"clean": 2699.29, "clutter": 3380.71}
    assert [len(plans[mode]["P554"].context) for mode in KINDS] == [144, 184]
    assert [len(plans[mode]["P642"].context) for mode in KINDS] == [464, 592]
    assert len(plans["clutter"]["P204"].target) == 89


@pytest.mark.parametrize(
    ("split", "padded_sum", "capped", "dropped"),
    [("test", 118016, 116636, 115616), ("validation", 25976, 25684, 25472)],
)
def test_numbers_of_clutter_frames_to_classify(split: Split, padded_sum: int, capped: int, dropped: int) -> None:
    target = [each for plan in evaluation(split, "clutter").values() for each in plan.target]
    assert sum(len(each.positions) for each in target) == padded_sum
    assert sum(len(set(each.positions)) for each in target) == capped
    assert sum(len(set(each.positions)) // 8 * 8 for each in target) == dropped


@pytest.mark.parametrize("mode", KINDS)
def test_target_videos_come_object_by_object_in_order_of_name(mode: Kind) -> None:
    for user, plan in evaluation("test", mode).items():
        own = found("test", mode)[user]
        expected = [(each.name, label) for label, one in enumerate(own) for each in one.target]
        assert [(each.video.name, each.label) for each in plan.target] == expected
        assert all(a < b for a, b in pairwise((each.label, each.video.name) for each in plan.target))


def test_tasks_of_a_user_differ_in_context_clips_alone() -> None:
    plans = [evaluation("test", "clutter", key)["P177"] for key in range(5)]
    assert all(plan.target == plans[0].target for plan in plans)
    assert len({plan.context for plan in plans}) == 5
    assert len({tuple(sorted(of_video(plan.context))) for plan in plans}) == 1


@pytest.mark.parametrize(("mode", "chance"), [("clean", 10.65), ("clutter", 10.97)])
def test_chance_accuracy(mode: Kind, chance: float) -> None:
    ways = [len(plan.objects) for plan in evaluation("test", mode).values() for _ in plan.target]
    assert round(100 * float(np.mean([1 / way for way in ways])), 2) == chance


def test_caps_on_videos_of_evaluation_tasks_draw_at_random() -> None:
    each = UserObject("mug", tuple(video("P1", "mug", "clean", i, 9) for i in range(44)), ())
    own = candidates([each], "clean", rules("2021"))
    plans = [evaluation_plan(own, rules("2021"), generator(0), generator(key)) for key in range(300)]
    assert {len(plan.target) for plan in plans} == {15}
    drawn = Counter(one.video.name for plan in plans for one in plan.target)
    assert len(drawn) == 39
    assert chisquare(list(drawn.values())).pvalue > SMALLEST_P
    assert all(
        [one.video.name for one in plan.target] == sorted(one.video.name for one in plan.target) for plan in plans
    )


# --- training tasks


def way_range(own: Sequence[Candidate], rule: Rules) -> range:
    return range(2, min(len(own), rule.caps.max_objects) + 1)


def expected_clips(mode: Kind, caps: CapsName, which: Callable[[Candidate], tuple[Video, ...]], side: str) -> Fraction:
    """Compute the mean number of clips by enumerating users, ways and numbers of videos, which are all uniform."""
    rule = rules("2021", caps)
    total = Fraction(0)
    users = found("train", mode)
    for own in users.values():
        ways = way_range(own, rule)
        for way in ways:
            cap = getattr(rule.caps.videos(way), side)
            shots = [Fraction(1 + min(len(which(each)), cap), 2) for each in own]
            total += 4 * way * sum(shots, Fraction(0)) / len(shots) / len(ways) / len(users)
    return total


EXPECTED = {("clean", "lite"): (43.39, 21.69), ("clutter", "lite"): (55.40, 22.33)} | {
    ("clean", "84"): (43.25, 18.85),
    ("clutter", "84"): (49.80, 22.14),
}


@pytest.mark.parametrize("caps", CAPS)
@pytest.mark.parametrize("mode", KINDS)
def test_mean_sizes_of_training_tasks(mode: Kind, caps: CapsName) -> None:
    context = float(expected_clips(mode, caps, lambda each: each.context, "context"))
    target = float(expected_clips(mode, caps, lambda each: each.target, "target"))
    assert (round(context, 2), round(target, 2)) == EXPECTED[mode, caps]
    n = 40
    sizes = np.array(
        [
            (len(plan.context), len(plan.target))
            for number, own in enumerate(found("train", mode).values())
            for plan in (train_plan(own, rules("2021", caps), generator(number * n + i)) for i in range(n))
        ]
    )
    errors = sizes.std(0) / math.sqrt(len(sizes))
    assert (np.abs(sizes.mean(0) - [context, target]) < 3.5 * errors).all()


@pytest.mark.parametrize(("caps", "mean"), [("lite", 4.159), ("84", 4.148)])
def test_mean_way_of_training_tasks(caps: CapsName, mean: float) -> None:
    users = found("train", "clean")
    assert round(float(np.mean([np.mean(way_range(own, rules("2021", caps))) for own in users.values()])), 3) == mean


@pytest.mark.parametrize(
    ("mode", "caps", "most"),
    [("clean", "lite", 212), ("clutter", "lite", 600), ("clean", "84", 200), ("clutter", "84", 200)],
)
def test_largest_training_tasks(mode: Kind, caps: CapsName, most: int) -> None:
    rule, largest = rules("2021", caps), 0
    for own in found("train", mode).values():
        for way in way_range(own, rule):
            shots = sorted(min(len(each.context), rule.caps.videos(way).context) for each in own)
            largest = max(largest, 4 * sum(shots[-way:]))
    assert largest == most


@pytest.mark.parametrize("caps", CAPS)
@pytest.mark.parametrize("mode", KINDS)
def test_training_tasks_keep_to_the_caps(mode: Kind, caps: CapsName) -> None:
    rule = rules("2021", caps)
    for number, (user, own) in enumerate(found("train", mode).items()):
        for key in range(12 if user != "P587" else 60):
            plan = train_plan(own, rule, generator(1000 * number + key))
            check_train_plan(plan, own, rule, caps)


def check_train_plan(plan: Plan, own: Sequence[Candidate], rule: Rules, caps: CapsName) -> None:
    way = len(plan.objects)
    assert 2 <= way <= min(len(own), 10 if caps == "84" else 15)
    assert [each.name for each in plan.objects] == sorted({each.name for each in plan.objects})
    most = (15, 15) if caps == "lite" else (5, 4) if way >= 6 else (10, 8)
    assert len(plan.context) <= (200 if caps == "84" else 600)
    by_name = {each.object.name: each for each in own}
    for label, each in enumerate(plan.objects):
        available = by_name[each.name]
        parts = ((plan.context, available.context, most[0]), (plan.target, available.target, most[1]))
        for clips, videos, cap in parts:
            grouped = of_video([clip for clip in clips if clip.label == label])
            assert 1 <= len(grouped) <= min(cap, len(videos))
            assert set(grouped) <= {video.name for video in videos}
            assert all(len(clips) == 4 and len(clips[0].positions) == 8 for clips in grouped.values())
    assert {clip.label for clip in plan.context} == {clip.label for clip in plan.target} == set(range(way))
    context = {clip.video.name for clip in plan.context}
    assert not context & {clip.video.name for clip in plan.target}


def test_way_objects_and_videos_are_uniform() -> None:
    own = found("train", "clutter")["P100"]
    assert len(own) == 9
    plans = [train_plan(own, rules("2021"), generator(key)) for key in range(3000)]
    ways = Counter(len(plan.objects) for plan in plans)
    assert set(ways) == set(range(2, 10))
    assert chisquare(list(ways.values())).pvalue > SMALLEST_P
    objects = Counter(each.name for plan in plans for each in plan.objects)
    assert chisquare(list(objects.values())).pvalue > SMALLEST_P
    mine = [plan for plan in plans if own[0].object in plan.objects]
    videos = [{clip.video.name for clip in plan.context if clip.label == 0} for plan in mine]
    assert chisquare(list(Counter(map(len, videos)).values())).pvalue > SMALLEST_P
    assert len(Counter(map(len, videos))) == len(own[0].context) == 6
    assert chisquare(list(Counter(name for names in videos for name in names).values())).pvalue > SMALLEST_P


def test_clips_are_shuffled() -> None:
    plans = [train_plan(found("train", "clean")["P100"], rules("2021"), generator(key)) for key in range(20)]
    for clips in [part for plan in plans for part in (plan.context, plan.target) if len(part) > 16]:
        labels = [clip.label for clip in clips]
        assert labels != sorted(labels)
    plan = evaluation("test", "clean")["P177"]
    assert [clip.label for clip in plan.context] != sorted(clip.label for clip in plan.context)


@given(st.integers(0, 2**63 - 1))
def test_a_plan_depends_on_its_generator_alone(key: int) -> None:
    own = found("train", "clean")["P106"]
    assert train_plan(own, rules("2021"), generator(key)) == train_plan(own, rules("2021"), generator(key))


def test_every_epoch_has_2200_tasks_50_of_each_user_in_another_order() -> None:
    epochs = [[train_user(2200 * epoch + i, 7, 44, 50) for i in range(2200)] for epoch in range(3)]
    for users in epochs:
        assert Counter(users) == dict.fromkeys(range(44), 50)
    assert epochs[0] != epochs[1]
    assert [train_user(i, 8, 44, 50) for i in range(2200)] != epochs[0]
    assert train_user(2200 + 13, 7, 44, 50) == epochs[1][13]
    positions = np.array([i for users in epochs for i, user in enumerate(users) if user == 0])
    assert positions.std() > 2200 / math.sqrt(12) * 0.8


@given(st.lists(st.integers(), max_size=20, unique=True), st.integers(1, 25), st.integers(0, 2**32))
def test_drawing_keeps_order_and_repeats_nothing(items: list[int], n: int, key: int) -> None:
    drawn = draw(items, n, generator(key))
    assert len(drawn) == min(n, len(items))
    assert drawn == [item for item in items if item in set(drawn)]


def test_numbers_of_videos_are_uniform_up_to_the_cap() -> None:
    sizes = Counter(len(draw_some(range(39), 15, generator(key))) for key in range(3000))
    assert set(sizes) == set(range(1, 16))
    assert chisquare(list(sizes.values())).pvalue > SMALLEST_P


# --- version 2022


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [0]),
        (29, [0]),
        (30, [0]),
        (31, [0, 30]),
        (299, list(range(0, 299, 30))),
        (300, list(range(0, 300, 30))),
        (1000, list(range(0, 300, 30))),
    ],
)
def test_every_30th_frame_at_most_10(n: int, expected: list[int]) -> None:
    assert every_nth(n, 30, 10).tolist() == expected


def test_version_2022_scores_297_of_300_clutter_videos() -> None:
    own = found("test", "clutter", "2022")
    scored = {video.name for each in own.values() for one in each for video in one.target}
    every = {video.name: video.n_frames for o in USERS["test"].values() for each in o for video in each.clutter}
    left_out = Counter(name.partition("--")[0] for name in every.keys() - scored)
    assert left_out == {"P204": 2, "P901": 1}
    assert sorted(every[name] for name in every.keys() - scored) == [40, 46, 49]
    assert len(scored) * rules("2022").tasks_per_user["test"] == 14850
    assert len(own) * rules("2022").tasks_per_user["test"] == 850
    assert {user: len(each) for user, each in own.items()} == {user: len(o) for user, o in USERS["test"].items()}


def test_version_2022_evaluation_tasks() -> None:
    own, shown = found("test", "clutter", "2022")["P901"], frames_shown("test")
    plans = [
        evaluation_plan(own, rules("2022"), generator(key), generator(100 + key), lambda video: shown[video.name])
        for key in range(3)
    ]
    assert plans[0].target != plans[1].target
    for plan in plans:
        assert Counter(len(clip.positions) for clip in plan.context) == {1: len(plan.context)}
        for clips in of_video(plan.context).values():
            assert sorted(clip.positions[0] for clip in clips) == list(range(0, 300, 30))
        for each in plan.target:
            valid = shown[each.video.name][:1000]
            assert len(each.positions) == min(200, len(valid))
            assert set(each.positions) <= set(valid.tolist())
            assert list(each.positions) == sorted(set(each.positions))
    assert {clip.positions for clip in plans[0].context} == {clip.positions for clip in plans[1].context}


def test_version_2022_filters_before_it_takes_the_first_1000_frames() -> None:
    long = UserObject("door", (video("P1", "door", "clean", 0, 9),), (video("P1", "door", "clutter", 0, 1315),))
    late = np.arange(300, 1315)
    own = candidates([long], "clutter", rules("2022"), lambda _: late)
    drawn = [
        position
        for key in range(40)
        for position in evaluation_plan(own, rules("2022"), generator(0), generator(key), lambda _: late)
        .target[0]
        .positions
    ]
    assert min(drawn) >= 300
    assert max(drawn) == 1299


def test_version_2022_training_tasks() -> None:
    own = found("train", "clutter", "2022")
    assert sum(len(one.target) for each in own.values() for one in each) == sum(
        n >= 50 for o in USERS["train"].values() for each in o for n in (video.n_frames for video in each.clutter)
    )
    numbers: Counter[int] = Counter()
    positions: Counter[int] = Counter()
    for number, each in enumerate(own.values()):
        for key in range(20):
            plan = train_plan(each, rules("2022"), generator(number * 100 + key))
            assert {len(clip.positions) for clip in (*plan.context, *plan.target)} == {1}
            assert {len(clips) for clips in of_video(plan.context).values()} == {10}
            numbers.update(len(clips) for clips in of_video(plan.target).values())
            positions.update(clip.positions[0] * 10 // min(clip.video.n_frames, 1000) for clip in plan.target)
            assert len({(clip.video.name, clip.positions) for clip in plan.target}) == len(plan.target)
    assert set(numbers) == set(range(1, 11))
    assert chisquare(list(numbers.values())).pvalue > SMALLEST_P
    assert set(positions) == set(range(10))


def test_version_2022_leaves_out_objects_without_videos_and_caps_their_number() -> None:
    short = UserObject("cup", (video("P1", "cup", "clean", 0, 9),), (video("P1", "cup", "clutter", 0, 49),))
    long = [
        UserObject(
            f"mug {i:02d}", (video("P1", f"mug-{i}", "clean", 0, 9),), (video("P1", f"mug-{i}", "clutter", 0, 50),)
        )
        for i in range(20)
    ]
    assert candidates([short], "clutter", rules("2022")) == ()
    own = candidates([short, *long], "clutter", rules("2022"))
    assert len(own) == 20
    plans = [evaluation_plan(own, rules("2022"), generator(key), generator(0)) for key in range(20)]
    assert {len(plan.objects) for plan in plans} == {15}
    assert len({plan.objects for plan in plans}) == 20
    assert len(evaluation_plan(own, rules("2021"), generator(0), generator(0)).objects) == 20
