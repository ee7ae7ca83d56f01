"""Where roots are looked for, and what is said of folders that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lite_bench.datasets.orbit import layout
from lite_bench.datasets.orbit.layout import (
    find_root,
    found_roots,
    frames_problem,
    missing_root,
    root_size,
    search_root,
)
from lite_bench.harness.errors import DataError
from tests.datasets.orbit.trees import write_tree

ONE = {"test": {"P177": {"keys": ((1, 1), (1,))}}}


@pytest.mark.parametrize("below", ["", "orbit_benchmark_16", "orbit/orbit_benchmark_16"])
def test_a_root_is_found_in_the_data_folder_and_below_it(tmp_path: Path, below: str) -> None:
    root = write_tree(tmp_path / "data" / below, ONE)
    assert find_root(16, tmp_path / "data") == root


@pytest.mark.parametrize("below", ["", "orbit_benchmark_16", "orbit/orbit_benchmark_16"])
def test_the_variable_of_the_authors_script_is_honoured(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "data" / below, ONE)
    monkeypatch.setenv("ORBIT_BENCHMARK_ROOT", str(tmp_path / "data"))
    assert find_root(16, None) == root
    nearer = write_tree(tmp_path / "mine" / "orbit_benchmark_16", ONE)
    assert find_root(16, tmp_path / "mine") == nearer  # --data-dir comes first
    assert find_root(16, tmp_path / "empty") == root


def test_all_places_are_looked_at_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORBIT_BENCHMARK_ROOT", str(tmp_path / "e"))
    names = ("", "orbit_benchmark_84", "orbit/orbit_benchmark_84")
    assert search_root(84, tmp_path / "d").looked == tuple(tmp_path / base / name for base in "de" for name in names)
    for root in reversed([tmp_path / base / name for base in "de" for name in names[1:]]):
        write_tree(root, ONE, 8)
        assert find_root(84, tmp_path / "d") == root  # by its name: frames are not decoded


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = write_tree(tmp_path / "data" / "orbit_benchmark_16", ONE)
    assert find_root(16, Path("~/data")) == root


def test_train_alone_makes_a_root_and_validation_does_not(tmp_path: Path) -> None:
    (tmp_path / "a/train").mkdir(parents=True)
    (tmp_path / "b/validation").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/test").touch()
    assert find_root(16, tmp_path / "a") == tmp_path / "a"
    assert find_root(16, tmp_path / "b") is None
    assert find_root(16, tmp_path / "c") is None


def test_what_is_missing_says_where_it_was_looked_for(tmp_path: Path) -> None:
    assert find_root(84, tmp_path) is None
    text = missing_root(84, tmp_path)
    assert f"84-pixel frames were not found (looked in {tmp_path}, {tmp_path / 'orbit_benchmark_84'}, " in text
    assert "`lite-bench data status orbit`" in text
    assert "give the folder that holds orbit_benchmark_84 as --data-dir; " in text
    assert "not found (neither --data-dir nor ORBIT_BENCHMARK_ROOT is given); give" in missing_root(84, None)


def test_what_is_missing_says_which_sizes_are_there(tmp_path: Path) -> None:
    for size in (16, 24):
        write_tree(tmp_path / f"orbit_benchmark_{size}", ONE, size)
    assert "or give --image-size 16 or 24, which is there; " in missing_root(84, tmp_path)


def test_frames_of_another_size_are_not_taken_by_their_folders_name(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "orbit_benchmark_84", ONE, 16)
    with pytest.raises(DataError, match=r"holds frames of 84 pixels, and 224 are asked for; give --image-size 84 or"):
        find_root(224, root)
    assert find_root(84, root) == root
    assert find_root(224, tmp_path) is None  # whose own folders have no frames of that size


def test_another_size_does_not_hide_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = write_tree(tmp_path / "orbit_benchmark_16", ONE)
    large = write_tree(tmp_path / "orbit_benchmark_24", ONE)
    monkeypatch.setenv("ORBIT_BENCHMARK_ROOT", str(large))
    assert find_root(24, small) == large


def test_a_folder_of_any_name_is_measured_by_its_frames(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "orbit_benchmark", ONE, 24)
    assert root_size(root) == 24
    with pytest.raises(DataError, match="holds frames of 24 pixels, and 84 are asked for"):
        find_root(84, root)
    for frame in root.rglob("*.jpg"):
        frame.write_bytes(b"no picture")
    assert root_size(root) is None
    assert find_root(84, root) == root  # whoever decodes a frame says what is wrong with it


def test_roots_of_all_sizes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_roots(None) == {}
    other = write_tree(tmp_path / "other" / "orbit_benchmark_8", ONE, 8)
    monkeypatch.setenv("ORBIT_BENCHMARK_ROOT", str(other))
    roots = {size: write_tree(tmp_path / f"orbit_benchmark_{size}", ONE) for size in (16, 24)}
    (tmp_path / "orbit_benchmark_99").mkdir()
    assert found_roots(tmp_path) == {8: other, **roots}


# --- what is no root


def test_the_unfiltered_dataset_is_named(tmp_path: Path) -> None:
    (tmp_path / "P100/keys/clutter-pan").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"holds the unfiltered ORBIT dataset.* folders train, validation and test from"
    ):
        find_root(224, tmp_path)


def test_a_single_split_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "orbit_benchmark_16", ONE)
    with pytest.raises(DataError, match="is a single split of ORBIT; give the folder above it"):
        find_root(16, root / "test")


def test_packed_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "test.zip").touch()
    (tmp_path / "train.zip").touch()
    with pytest.raises(DataError, match=r"holds train\.zip and test\.zip, still packed; .* prepare orbit_84 --from"):
        find_root(84, tmp_path)
    with pytest.raises(DataError, match=r"still packed; unpack them\.$"):
        find_root(16, tmp_path)  # a size that is not prepared


def test_the_first_problem_is_told_and_only_if_there_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "test.zip").touch()
    root = write_tree(tmp_path / "orbit_benchmark_16", ONE)
    assert search_root(16, tmp_path).root == root
    assert search_root(16, tmp_path).problem == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_may_not_be_looked_into_is_no_root(tmp_path: Path) -> None:
    locked = tmp_path / "data"
    locked.mkdir(mode=0)
    assert find_root(16, locked) is None


def test_forbidden_folders_are_no_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert not layout.is_root(tmp_path)


# --- frames of a video


@pytest.mark.parametrize(
    ("numbers", "others", "problem"),
    [
        ([1, 2, 3], [], ""),
        ([], [], "has no frames"),
        ([2, 3], [], "lacks v-00001.jpg, though it has v-00003.jpg"),
        ([1, 2, 4, 7], [], "lacks v-00003.jpg, though it has v-00007.jpg"),
        ([1, 2], ["notes.txt"], "The file notes.txt in here is not named as a frame"),
        ([1, 2], ["v-3.jpg"], "The file v-3.jpg in here is not named as a frame"),
        ([1, 2], ["v-00003.png"], "The file v-00003.png in here is not named as a frame"),
        ([1, 2], ["w-00003.jpg"], "The file w-00003.jpg in here is not named as a frame"),
        ([0, 1], [], "The file v-00000.jpg in here is not named as a frame"),
    ],
)
def test_frames_are_numbered_from_one_without_gaps(numbers: list[int], others: list[str], problem: str) -> None:
    names = sorted([f"v-{number:05d}.jpg" for number in numbers] + others)
    found = frames_problem("v", names, "here")
    assert problem in found
    assert bool(found) == bool(problem)
