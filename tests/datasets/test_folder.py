"""Any tree of images: its classes, its splits, its tasks, and what is wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lite_bench.datasets.folder import Folder
from lite_bench.datasets.folder_index import list_folder, split_by_seed, split_sizes
from lite_bench.harness.core import Task
from lite_bench.harness.errors import DataError, UsageError
from lite_bench.harness.options import check_options
from tests.datasets.suite_checks import check_episode, check_suite, same


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_tree(root: Path, classes: int = 16, images: int = 6, prefix: str = "") -> Path:
    for c in range(classes):
        for i in range(images):
            write_image(root / f"{prefix}c{c:02d}" / f"{i}.{'png' if i % 2 else 'jpg'}", 100 * c + i)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("data") / "my photos!")


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree, tmp_path / "copy"))


def open_folder(root: Path, **options: Any) -> Folder:
    return Folder(16, root, **options)


def test_suite(tree: Path) -> None:
    check_suite(open_folder(tree, tasks=2, train_fraction=0.4, validation_fraction=0.3))


def test_suite_of_fixed_way_and_shot(tree: Path) -> None:
    suite = open_folder(tree, way=2, shot=3, query=2, tasks=2)
    check_suite(suite)
    episode = check_episode(suite, suite.train_task(5, 5))
    assert (episode.support.way, len(episode.support.labels), episode.n_query) == (2, 6, 4)


def test_names_and_defaults(tree: Path) -> None:
    suite = Folder(None, tree)
    assert suite.id == "folder-my-photos@1"
    assert suite.image_size == 224
    assert len(suite.tasks("test")["my-photos"]) == 600
    assert suite.groups == {}
    assert suite.notes == [f"Classes of {tree}: 10 train, 3 validation, 3 test."]
    assert Folder.configured(tree) == str(tree)
    assert Folder.configured(tree / "c01") is None
    assert Folder.configured(tree / "nowhere") is None
    assert Folder.configured(None) is None
    options = {"way": "2", "split_seed": "3", "train_fraction": "0.5", "skip_bad_images": "true"}
    typed = check_options(Folder, options, "suite 'folder'", "-S")
    assert open_folder(tree, **typed).id == (
        "folder-my-photos@1+skip_bad_images=true+split_seed=3+train_fraction=0.5+way=2"
    )


def test_seeded_splits_are_disjoint_recorded_and_repeatable(tree: Path) -> None:
    one, two, other = open_folder(tree), open_folder(tree), open_folder(tree, split_seed=1)
    splits = one.class_splits()
    assert splits == two.class_splits() != other.class_splits()
    assert sorted(name for names in splits.values() for name in names) == [f"c{c:02d}" for c in range(16)]


@given(
    st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=6, max_size=60),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_seeded_splits_of_any_names(names: set[str], a: float, b: float, seed: int) -> None:
    train, validation = min(a, b), 1 - max(a, b)
    splits = split_by_seed(sorted(names), train, validation, seed)
    assert splits == split_by_seed(sorted(names, reverse=True), train, validation, seed)
    assert sorted(name for members in splits.values() for name in members) == sorted(names)
    assert all(members == sorted(members) for members in splits.values())


@pytest.mark.parametrize(
    ("n", "shares", "sizes"),
    [
        (100, (0.64, 0.16, 0.2), [64, 16, 20]),
        (6, (0.64, 0.16, 0.2), [2, 2, 2]),
        (8, (0.64, 0.16, 0.2), [4, 2, 2]),
        (8, (0.0, 0.0, 1.0), [0, 0, 8]),
        (8, (1.0, 0.0, 0.0), [8, 0, 0]),
        (3, (0.5, 0.5, 0.0), [1, 2, 0]),
    ],
)
def test_split_sizes(n: int, shares: tuple[float, ...], sizes: list[int]) -> None:
    assert split_sizes(n, shares) == sizes


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_splits_by_folders(tmp_path: Path, validation: str) -> None:
    make_tree(tmp_path, 4, 4, "train/a")
    make_tree(tmp_path, 3, 4, f"{validation}/b")
    make_tree(tmp_path, 2, 4, "test/c")
    write_image(tmp_path / "test" / "nested" / "deep" / "1.png", 1)
    write_image(tmp_path / "test" / "nested" / "deep" / "2.png", 2)
    (tmp_path / "train" / "README.md").write_text("about")
    suite = open_folder(tmp_path, tasks=2)
    assert {split: len(names) for split, names in suite.class_splits().items()} == {
        "train": 4,
        "validation": 3,
        "test": 3,
    }
    assert suite.class_splits()["test"][-1] == "test/nested/deep"
    assert suite.notes[1] == "Passed over 1 file (train/README.md) outside the classes."
    check_suite(suite)


def test_split_folders_may_not_share_classes(tmp_path: Path) -> None:
    make_tree(tmp_path, 2, 4, "train/")
    make_tree(tmp_path, 2, 4, "test/")
    with pytest.raises(DataError, match=r"Class 'c00' is in both train/ and test/ .*; few-shot splits hold different"):
        open_folder(tmp_path)


def test_split_folders_may_not_have_strangers(tmp_path: Path) -> None:
    make_tree(tmp_path, 2, 4, "train/")
    make_tree(tmp_path, 2, 4, "extra")
    with pytest.raises(DataError, match=r"has split folders .* but also 'extrac00' beside them; move all classes"):
        open_folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make_tree(tmp_path, 6, 4)
    for i in range(4):
        write_image(tmp_path / "train" / f"{i}.png", i)
    assert "train" in {name for names in open_folder(tmp_path).class_splits().values() for name in names}


def test_without_validation_classes_there_are_no_validation_tasks(tree: Path) -> None:
    suite = open_folder(tree, train_fraction=0.5, validation_fraction=0.0)
    assert suite.tasks("validation") == {}
    everything = open_folder(tree, train_fraction=0.0, validation_fraction=0.0, way=16)
    assert len(everything.class_splits()["test"]) == 16
    with pytest.raises(DataError, match=r"only 0 classes in the train split of .*, fewer than way=16; add"):
        everything.train_task(0, 0)


def test_nested_classes_links_and_hidden_files(tmp_path: Path, tree: Path) -> None:
    root = tmp_path / "root"
    make_tree(root, 2, 3, "animals/")
    make_tree(root / "animals" / "c00", 1, 3, "kinds/")
    (root / "linked").symlink_to(tree / "c03")
    (root / "animals" / "loop").symlink_to(root)
    (root / "animals" / "c00" / ".DS_Store").write_bytes(b"x")
    (root / "animals" / "c00" / "Thumbs.db").write_bytes(b"x")
    (root / ".hidden").mkdir()
    index = list_folder(root)
    assert {name: len(files) for name, files in index.classes.items()} == {
        "animals/c00": 3,
        "animals/c00/kinds/c00": 3,
        "animals/c01": 3,
        "linked": 6,
    }
    assert index.passed_over == ()


def test_the_same_tree_elsewhere_is_the_same_data(tree: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(tree, tmp_path / tree.name))
    one, two = open_folder(tree), open_folder(twin)
    assert (one.id, one.fingerprint) == (two.id, two.fingerprint)
    task = one.train_task(0, 0)
    assert same(one.episode(task), two.episode(task))
    write_image(twin / "c00" / "new.png", 5)
    assert open_folder(twin).fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"way": 4},
            DataError,
            "only 3 classes in the test split of .*, fewer than way=4; lower the way to 3",
        ),
        (
            {"shot": 5, "query": 2},
            DataError,
            r"'c00' in .* has only 6 images, but a task needs 7 of each class",
        ),
        ({"train_fraction": 0.9, "validation_fraction": 0.2}, UsageError, "give fractions .* at most 1"),
        ({"train_fraction": -0.1}, UsageError, "train_fraction=-0.1"),
        ({"way": 1}, UsageError, "way=1"),
        ({"tasks": 0}, UsageError, "tasks=0"),
    ],
)
def test_impossible_options(tree: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_folder(tree, **options).tasks("test")


def test_no_folder_or_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--suite folder:PATH"):
        Folder(None, None)
    with pytest.raises(DataError, match="nowhere does not exist; give a folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no classes; put the images of each class into a sub-folder"):
        open_folder(tmp_path)
    write_image(tmp_path / "a.png", 0)
    with pytest.raises(DataError, match=r"a.png is not a folder"):
        open_folder(tmp_path / "a.png")
    with pytest.raises(DataError, match="has no classes"):
        open_folder(tmp_path)


def test_an_empty_class_is_named(copy: Path) -> None:
    (copy / "empty").mkdir()
    with pytest.raises(DataError, match=r"Class 'empty' in .* has no images; add images or delete its folder"):
        open_folder(copy)


def test_a_class_too_small_is_named(copy: Path) -> None:
    write_image(copy / "lonely" / "1.png", 0)
    with pytest.raises(DataError, match=r"Class 'lonely' in .* has only 1 image, but a task needs 2 of each class"):
        open_folder(copy)


def break_files(root: Path) -> None:
    (root / "c00" / "notes.txt").write_text("not an image")
    (root / "c01" / "0.jpg").write_bytes((root / "c01" / "0.jpg").read_bytes()[:300])
    (root / "c02" / "1.png").write_bytes(b"")
    (root / "c03" / "gone.png").symlink_to(root / "away.png")


def test_a_file_that_is_no_image_is_named_at_once(copy: Path) -> None:
    (copy / "c00" / "notes.txt").write_text("not an image")
    with pytest.raises(DataError, match=r"c00/notes.txt is not an image .*; .*-S skip_bad_images=true"):
        open_folder(copy)


def test_a_corrupt_file_is_named_when_it_is_used(copy: Path) -> None:
    path = copy / "c01" / "0.jpg"
    path.write_bytes(path.read_bytes()[:300])
    suite = open_folder(copy, train_fraction=0.0, validation_fraction=0.0, way=16, shot=3, query=3)
    with pytest.raises(DataError, match=r"c01/0.jpg is corrupt \(.*\); .*-S skip_bad_images=true"):
        suite.episode(suite.tasks("test")["copy"][0])


def test_bad_images_are_skipped_counted_and_reported(copy: Path) -> None:
    break_files(copy)
    suite = open_folder(copy, skip_bad_images=True, train_fraction=0.0, validation_fraction=0.0, way=16)
    (note,) = [note for note in suite.notes if note.startswith("Skipped")]
    assert note == "Skipped 4 bad images (c00/notes.txt, c01/0.jpg, c02/1.png, c03/gone.png)."
    for task in suite.tasks("test")["copy"][:10]:
        check_episode(suite, task)


def test_a_class_of_only_bad_images_is_still_an_error(copy: Path) -> None:
    for path in (copy / "c05").iterdir():
        path.write_bytes(b"bad")
    with pytest.raises(DataError, match=r"'c05' in .* \(after 6 bad images were skipped\) has no images"):
        open_folder(copy, skip_bad_images=True)


def test_tasks_of_another_folder_are_refused(tree: Path) -> None:
    with pytest.raises(UsageError, match="is not of suite folder-my-photos@1"):
        open_folder(tree).episode(Task("folder-other@1", "other", "test", 0))


@pytest.mark.data
def test_real_photos(data_root: Path) -> None:
    suite = Folder(64, data_root / "grocery_store", tasks=3)
    splits = suite.class_splits()
    assert {split: len(names) for split, names in splits.items()} == {
        "train": 52,
        "validation": 13,
        "test": 16,
    }
    assert "LICENSE" in suite.notes[1]
    for task in suite.tasks("test")["grocery_store"]:
        episode = check_episode(suite, task)
        assert 5 <= episode.support.way <= 16
        assert episode.n_query == 10 * episode.support.way
