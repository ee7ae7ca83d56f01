"""The table of tasks against the published facts, and the language of slices against plain slicing."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lite_bench.datasets.vtab.labels import label_rule
from lite_bench.datasets.vtab.pixels import resize_rule
from lite_bench.datasets.vtab.tasks import PROFILES, Part, Profile, VtabTask, cut, dataset_named, task_named, tasks
from lite_bench.harness.errors import DataError, UnknownNameError, UsageError

# google-research/task_adaptation and cambridge-mlg/LITE: classes, and the number of test images in each profile.
FACTS = {
    "caltech101": (102, 6084, 6084),
    "cifar100": (100, 10000, 10000),
    "oxford_flowers102": (102, 6149, 6149),
    "oxford_iiit_pet": (37, 3669, 3669),
    "sun397": (397, 21751, 21750),
    "svhn_cropped": (10, 26032, 26032),
    "eurosat": (10, 26000, 5400),
    "resisc45": (45, 30500, 6300),
    "patch_camelyon": (2, 32768, 32768),
    "diabetic_retinopathy_detection": (5, 42670, 42670),
    "clevr_count": (8, 15000, 15000),
    "clevr_distance": (6, 15000, 15000),
    "dsprites_location": (16, 736280, 73728),
    "dsprites_orientation": (16, 736280, 73728),
    "smallnorb_azimuth": (18, 24300, 12150),
    "smallnorb_elevation": (9, 24300, 12150),
    "dmlab": (6, 22735, 22735),
    "kitti": (4, 711, 711),
}
# Where the 200 validation images of the official support set are.
OFFICIAL_200 = {
    "caltech101": ("train", 2754),
    "cifar100": ("train", 45000),
    "oxford_flowers102": ("validation", 0),
    "oxford_iiit_pet": ("train", 2944),
    "sun397": ("validation", 0),
    "svhn_cropped": ("train", 65931),
    "eurosat": ("train", 16200),
    "resisc45": ("train", 18900),
    "patch_camelyon": ("validation", 0),
    "diabetic_retinopathy_detection": ("validation", 0),
    "clevr_count": ("train", 63000),
    "clevr_distance": ("train", 63000),
    "dsprites_location": ("train", 589824),
    "dsprites_orientation": ("train", 589824),
    "smallnorb_azimuth": ("test", 0),
    "smallnorb_elevation": ("test", 0),
    "dmlab": ("validation", 0),
    "kitti": ("validation", 0),
}
OFFICIAL_TEST_STARTS = {"eurosat": 21600, "resisc45": 25200, "dsprites": 663552, "smallnorb": 12150}
SUN397_FOLDER = {"train": 76128, "validation": 10875, "test": 21751, "support": 1000}


def real_sizes(task: VtabTask, profile: Profile) -> dict[str, int]:
    if task.selections[profile].folder:
        return SUN397_FOLDER
    return {split: sizes[0] for split, sizes in task.dataset.splits.items()}


def members(parts: tuple[Part, ...]) -> set[tuple[str, int]]:
    return {(part.split, position) for part in parts for position in part.positions}


def length(parts: tuple[Part, ...]) -> int:
    return sum(len(part.positions) for part in parts)


def test_order_groups_and_classes() -> None:
    assert {task.name: task.classes for task in tasks()} == {name: fact[0] for name, fact in FACTS.items()}
    assert [task.name for task in tasks()] == list(FACTS)
    assert [task.group for task in tasks()] == ["natural"] * 6 + ["specialized"] * 4 + ["structured"] * 8
    assert len({task.dataset.name for task in tasks()}) == 15
    assert all(re.fullmatch(r"[a-z0-9_]+", task.name) for task in tasks())


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_the_rules_it_names_exist(task: VtabTask) -> None:
    label_rule(task.label)
    for selection in task.selections.values():
        resize_rule(selection.resize)


def test_configs_folder_and_resizing() -> None:
    table = {
        profile: {task.name: (task.selections[profile].config, task.selections[profile].resize) for task in tasks()}
        for profile in PROFILES
    }
    for profile, resize in zip(PROFILES, ("lanczos", "bilinear"), strict=True):
        plain = {name: row[1] for name, row in table[profile].items() if not name.startswith(("dsprites", "small"))}
        plain.pop("sun397")
        assert set(plain.values()) == {resize}
    assert table["lite"]["diabetic_retinopathy_detection"][0] == "original"
    assert table["official"]["diabetic_retinopathy_detection"][0] == "btgraham-300"
    assert table["official"]["sun397"] == ("tfds", "bilinear")
    assert table["lite"]["sun397"] == (None, "pillow_bilinear")
    assert table["lite"]["eurosat"][0] == table["official"]["eurosat"][0] == "rgb"
    assert table["lite"]["dsprites_location"][1] == "lanczos_binary"
    assert table["official"]["dsprites_orientation"][1] == "bilinear_binary"
    assert table["lite"]["smallnorb_azimuth"][1] == "lanczos_grey"
    assert [task.name for task in tasks() for p in PROFILES if task.selections[p].folder] == ["sun397"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_support_and_test_of_the_real_sizes(task: VtabTask, profile: Profile) -> None:
    sizes, selection = real_sizes(task, profile), task.selections[profile]
    support, test = cut(selection.support, sizes), cut(selection.test, sizes)
    assert length(support) == len(members(support)) == 1000
    assert length(test) == FACTS[task.name][1 if profile == "lite" else 2]
    for part in (*support, *test):
        assert 0 <= part.positions.start <= part.positions.stop <= sizes[part.split]
    taken = members(support)
    assert not any((part.split, position) in taken for part in test for position in part.positions)


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_official_slices(task: VtabTask) -> None:
    sizes, selection = real_sizes(task, "official"), task.selections["official"]
    split, start = OFFICIAL_200[task.name]
    assert cut(selection.support, sizes) == (Part("train", range(800)), Part(split, range(start, start + 200)))
    (test,) = cut(selection.test, sizes)
    assert test.positions.start == OFFICIAL_TEST_STARTS.get(task.dataset.name, 0)
    assert test.positions.stop == sizes[test.split]


@pytest.mark.parametrize("task", [task for task in tasks() if task.name != "sun397"], ids=lambda task: task.name)
def test_lite_slices(task: VtabTask) -> None:
    sizes, selection = real_sizes(task, "lite"), task.selections["lite"]
    assert cut(selection.support, sizes) == (Part("train", range(1000)),)
    split, start = ("test", 0) if "test" in sizes else ("train", 1000)
    if task.dataset.name == "clevr":
        split = "validation"
    assert cut(selection.test, sizes) == (Part(split, range(start, sizes[split])),)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
@settings(max_examples=25, deadline=None)
@given(train=st.integers(2000, 10**6), validation=st.integers(200, 10**6), test=st.integers(400, 10**6))
def test_support_and_test_never_overlap(
    task: VtabTask, profile: Profile, train: int, validation: int, test: int
) -> None:
    sizes = {"train": train, "validation": validation, "test": test, "support": 1000}
    support, tested = (cut(text, sizes) for text in (task.selections[profile].support, task.selections[profile].test))
    assert length(support) == 1000
    assert length(tested) > 0
    for number, part in enumerate(support):
        for other in (*support[:number], *tested):
            if part.split == other.split:
                a, b = part.positions, other.positions
                assert max(a.start, b.start) >= min(a.stop, b.stop)


@settings(deadline=None)
@given(n=st.integers(0, 5000), bounds=st.lists(st.tuples(*[st.none() | st.integers(0, 6000)] * 2), max_size=3))
def test_cuts_by_number_are_pythons_slices(n: int, bounds: list[tuple[int | None, int | None]]) -> None:
    text, expected = "train", list(range(n))
    for start, stop in bounds:
        text += f"[{'' if start is None else start}:{'' if stop is None else stop}]"
        expected = expected[start:stop]
    (part,) = cut(text, {"train": n})
    assert list(part.positions) == expected


@settings(deadline=None)
@given(n=st.integers(0, 10**6), low=st.integers(0, 100), high=st.integers(0, 100))
def test_per_cent_are_rounded_down(n: int, low: int, high: int) -> None:
    assume(low <= high)
    (part,) = cut(f"train[{low}%:{high}%]", {"train": n})
    assert 100 * part.positions.start <= low * n < 100 * (part.positions.start + 1)
    assert 100 * part.positions.stop <= high * n < 100 * (part.positions.stop + 1)


@pytest.mark.parametrize("text", ["", "train[", "train[1:2", "train[-1:]", "train[:5] +", "train[1]", "train [x:]"])
def test_a_slice_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        cut(text, {"train": 10})


def test_names_that_are_not_there() -> None:
    with pytest.raises(DataError, match=r"needs the split 'validation', and the data has train"):
        cut("validation[:5]", {"train": 10})
    with pytest.raises(UnknownNameError, match="clevr_count"):
        task_named("clevr_counts")
    with pytest.raises(UnknownNameError, match="smallnorb"):
        dataset_named("small_norb")
    assert task_named("kitti").dataset == dataset_named("kitti")
