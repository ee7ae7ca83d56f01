"""Omniglot: the kinds of copies, the splits and the classic tasks, and the facts of the real files."""

from __future__ import annotations

import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lite_bench.datasets.omniglot import VALIDATION_ALPHABETS, Omniglot, split_characters
from lite_bench.datasets.omniglot_sources import TFDS_SPLITS, find_copy, open_copy
from lite_bench.harness.core import Task
from lite_bench.harness.errors import DataError, UsageError
from tests.datasets.suite_checks import check_episode, check_suite, queries, same

ALPHABETS = {
    "background": ("Greek", "Latin", *VALIDATION_ALPHABETS[:2]),
    "evaluation": ("Angelic", "Atlantean"),
}
CHARACTERS, DRAWINGS = 3, 20
SMALL: dict[str, Any] = {"way": 5, "shot": 1, "query": 2, "tasks": 2}


def png(seed: int) -> bytes:
    """Draw something: a 105 x 105 black-and-white PNG, as the official files are."""
    pixels = np.random.default_rng(seed).random((7, 7)) < 0.7
    image = Image.fromarray(pixels.repeat(15, 0).repeat(15, 1))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def drawings() -> dict[str, bytes]:
    """Name and draw the files of a small Omniglot."""
    made: dict[str, bytes] = {}
    for part, alphabets in ALPHABETS.items():
        for a, alphabet in enumerate(alphabets):
            for c in range(CHARACTERS):
                for d in range(DRAWINGS):
                    number = 100 * len(part) + 10 * a + c
                    name = f"images_{part}/{alphabet}/character{c + 1:02d}/{number:04d}_{d + 1:02d}.png"
                    made[name] = png(len(made))
    return made


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zips")
    for part in ALPHABETS:
        with zipfile.ZipFile(folder / f"images_{part}.zip", "w") as archive:
            archive.mkdir(f"images_{part}/")
            archive.writestr("__MACOSX/images_background/._x/character01/0001_01.txt", b"")
            for name, data in drawings().items():
                if name.startswith(f"images_{part}"):
                    archive.writestr(name, data)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders")
    for name, data in reversed(drawings().items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tfds_builder(alphabets: list[str]) -> Any:
    """Make a builder with the features of TFDS's omniglot/3.0.0."""
    import tensorflow_datasets as tfds

    class Maker(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
        name = "omniglot"
        VERSION = tfds.core.Version("3.0.0")
        code_path = None

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(105, 105, 3), encoding_format="png"),
                "alphabet": tfds.features.ClassLabel(names=alphabets),
                "alphabet_char_id": np.int64,
                "label": tfds.features.ClassLabel(num_classes=1623),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager
            return {split: self._generate_examples(part) for part, split in TFDS_SPLITS.items()}

        def _generate_examples(self, part: str) -> Any:
            for name, data in drawings().items():
                folder, alphabet, character, file = name.split("/")
                if folder == f"images_{part}":
                    number = int(character[-2:]) - 1
                    values = (io.BytesIO(data), alphabet, number, int(file[:4]) % 1623)
                    yield (
                        name,
                        dict(zip(("image", "alphabet", "alphabet_char_id", "label"), values, strict=True)),
                    )

    return Maker


def prepare_tfds(folder: Path, file_format: str) -> Path:
    """Prepare a small copy as TFDS does, without TensorFlow."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maker = tfds_builder(sorted(name for names in ALPHABETS.values() for name in names))
        maker(data_dir=folder, file_format=file_format).download_and_prepare()
    return folder


@pytest.fixture(scope="module", params=["array_record", "parquet"])
def tfds_copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    tfds = pytest.importorskip("tensorflow_datasets")
    with pytest.MonkeyPatch.context() as patch:
        # TFDS 4.9.10 writes one batch of 100 and loses most of the rest; one large batch is written whole.
        patch.setattr(tfds.core.file_adapters.ParquetFileAdapter, "_BATCH_SIZE", 10_000)
        yield prepare_tfds(tmp_path_factory.mktemp(f"tfds_{request.param}"), request.param)


def make_all(suite: Omniglot) -> None:
    tasks = [suite.train_task(index, 0) for index in range(20)]
    for task in (*tasks, *suite.tasks("test")["5-way-1-shot"]):
        suite.episode(task)


def test_suite(zips: Path) -> None:
    check_suite(Omniglot(None, zips, **SMALL))


def test_folders_give_the_same_episodes_as_zips(zips: Path, folders: Path) -> None:
    one, two = Omniglot(None, zips, **SMALL), Omniglot(None, folders, **SMALL)
    assert Omniglot.configured(zips) == f"zips in {zips}"
    assert Omniglot.configured(folders) == f"folders in {folders}"
    assert one.fingerprint == two.fingerprint
    assert same(one.episode(one.train_task(0, 0)), two.episode(one.train_task(0, 0)))


def test_a_tfds_copy_gives_the_same_episodes(zips: Path, tfds_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_copy))
    one, two = Omniglot(None, zips, **SMALL), Omniglot(None, None, **SMALL)
    assert Omniglot.configured(None) == f"tfds in {tfds_copy}/omniglot/3.0.0"
    assert one.fingerprint == two.fingerprint
    assert one.class_splits() == two.class_splits()
    assert same(one.episode(one.train_task(0, 0)), two.episode(one.train_task(0, 0)))


def test_a_tfds_copy_with_lost_drawings_is_refused(tfds_copy: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tfds_copy / "omniglot", tmp_path / "omniglot"))
    info = copy / "3.0.0" / "dataset_info.json"
    content = json.loads(info.read_text())
    for split in content["splits"]:
        split["shardLengths"] = [str(int(split["shardLengths"][0]) + 1)]
    info.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"omniglot/3.0.0 (holds 240 of 241 drawings|cannot be read).*; prepare"):
        Omniglot(None, tmp_path, **SMALL)


def test_places_are_searched_in_order(zips: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(folders))
    assert find_copy(None) == ("folders", folders)
    monkeypatch.setenv("OMNIGLOT_ROOT", str(zips))
    assert find_copy(None) == ("zips", zips)
    assert find_copy(folders) == ("folders", folders)


def test_a_missing_copy_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert Omniglot.configured(tmp_path) is None
    with pytest.raises(DataError, match=f"not found in {tmp_path}, {tmp_path}/tfds; download images_background"):
        Omniglot(None, tmp_path)


def test_damaged_archives_are_named(tmp_path: Path, zips: Path) -> None:
    for part in ALPHABETS:
        data = (zips / f"images_{part}.zip").read_bytes()
        (tmp_path / f"images_{part}.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"archive .*images_background.zip cannot be read .*; download it again"):
        Omniglot(None, tmp_path)


def test_a_damaged_member_is_named(tmp_path: Path, zips: Path) -> None:
    for part in ALPHABETS:
        data = bytearray((zips / f"images_{part}.zip").read_bytes())
        for start in range(2000, len(data) // 2, 300):
            data[start] ^= 0xFF
        (tmp_path / f"images_{part}.zip").write_bytes(data)
    suite = Omniglot(None, tmp_path, **SMALL)
    with pytest.raises(DataError, match=r"archive .*images_.*.zip is damaged .*; download it again"):
        make_all(suite)


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    for part in ALPHABETS:
        with zipfile.ZipFile(tmp_path / f"images_{part}.zip", "w") as archive:
            archive.writestr("read-me.txt", "hello")
    with pytest.raises(DataError, match=r"The background set in .* holds no drawings named like"):
        Omniglot(None, tmp_path)


def test_a_broken_drawing_is_named(tmp_path: Path, folders: Path) -> None:
    for name, data in drawings().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image" if "Angelic" in name else data)
    suite = Omniglot(None, tmp_path, **SMALL)
    with pytest.raises(DataError, match=r"drawing of Omniglot's Angelic/character0\d is not an image"):
        make_all(suite)


def test_sources_and_ids(zips: Path) -> None:
    suite = Omniglot(None, zips, way=5, tasks=7)
    assert suite.id == "omniglot@1+tasks=7+way=5"
    assert {name: len(tasks) for name, tasks in suite.tasks("test").items()} == {
        "5-way-1-shot": 7,
        "5-way-5-shot": 7,
    }
    assert suite.train_task(0, 0).source == "5-way-5-shot-5-query"
    other = Omniglot(None, zips, way=5, shot=1, query=3, train_way=6, train_query=2)
    assert other.id == "omniglot@1+query=3+shot=1+way=5"
    assert list(other.tasks("test")) == ["5-way-1-shot"]
    assert other.train_task(0, 0).source == "6-way-1-shot-2-query"
    episode = check_episode(other, other.train_task(0, 0))
    assert (episode.support.way, episode.n_query) == (6, 12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"way": 30}, DataError, "only 24 classes in the validation split of Omniglot, fewer than way=30"),
        (
            {"shot": 10, "way": 5},
            DataError,
            r"has only 20 images, but a task needs 25 .*\(shot=10 and query=15\)",
        ),
        ({"way": 0}, UsageError, "way=0 is too small"),
        ({"train_way": 1}, UsageError, "way=1 is too small"),
    ],
)
def test_impossible_options(zips: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Omniglot(None, zips, **options)


def test_too_few_training_classes_are_named(zips: Path) -> None:
    suite = Omniglot(None, zips, train_way=60)
    with pytest.raises(DataError, match="only 24 classes in the train split of Omniglot, fewer than way=60"):
        suite.train_task(0, 0)


def test_rotations_are_classes_of_their_own(zips: Path) -> None:
    plain = Omniglot(14, zips, way=2, shot=19, query=1, rotations=False)
    assert plain.class_splits()["test"][0] == "Angelic/character01@0"
    turned = Omniglot(14, zips, way=2, shot=19, query=1)
    assert len(turned.class_splits()["test"]) == 4 * len(plain.class_splits()["test"])
    task = Task(turned.id, "2-way-19-shot", "test", 0)
    seen = {image.numpy().tobytes() for image in turned.episode(task).support.images[:, 0]}
    characters = open_copy(zips)
    upright = {
        np.rot90(np.asarray(image), turns).tobytes()
        for name in characters
        for data in characters[name].read()
        for image in [Image.open(io.BytesIO(data)).convert("L").resize((14, 14), Image.Resampling.BILINEAR)]
        for turns in range(4)
    }
    assert seen <= upright


def test_ink_is_dark_unless_inverted(zips: Path) -> None:
    plain, inverted = (Omniglot(None, zips, invert=invert, **SMALL) for invert in (False, True))
    assert inverted.id.startswith("omniglot@1+invert=true")
    task = plain.train_task(0, 0)
    a = plain.episode(task).support.images
    assert a.float().mean() > 128
    b = inverted.episode(Task(inverted.id, task.source, "train", 0)).support.images
    assert b.float().mean() < 128


def test_mixed_characters_depend_on_the_seed(zips: Path) -> None:
    characters = open_copy(zips)
    one, two = (split_characters(characters, "mixed", seed) for seed in (0, 1))
    assert one != two
    assert sorted(name for names in one.values() for name in names) == sorted(characters)
    suite = Omniglot(None, zips, protocol="mixed", split_seed=1, way=2)
    assert suite.id == "omniglot@1+protocol=mixed+split_seed=1+way=2"


@pytest.mark.data
class TestRealOmniglot:
    """The facts of the official files."""

    def test_facts(self, data_root: Path) -> None:
        characters = open_copy(data_root)
        for part, n_characters, n_alphabets in (("background", 964, 30), ("evaluation", 659, 20)):
            names = [name for name, member in characters.items() if member.part == part]
            assert len(names) == n_characters
            assert len({name.split("/")[0] for name in names}) == n_alphabets
        assert {len(member.sizes) for member in characters.values()} == {20}
        with Image.open(io.BytesIO(characters["Latin/character01"].read()[0])) as image:
            assert (image.size, image.mode) == ((105, 105), "1")

    def test_splits(self, data_root: Path) -> None:
        suite = Omniglot(None, data_root)
        splits = suite.class_splits()
        assert {split: len(names) for split, names in splits.items()} == {
            "train": 4 * 883,
            "validation": 4 * 81,
            "test": 4 * 659,
        }
        alphabets = {split: {name.split("/")[0] for name in names} for split, names in splits.items()}
        assert {split: len(names) for split, names in alphabets.items()} == {
            "train": 25,
            "validation": 5,
            "test": 20,
        }
        assert alphabets["validation"] == set(VALIDATION_ALPHABETS)
        mixed = Omniglot(None, data_root, protocol="mixed").class_splits()
        assert {split: len(names) for split, names in mixed.items()} == {
            "train": 4112,
            "validation": 688,
            "test": 1692,
        }

    def test_episodes(self, data_root: Path) -> None:
        suite = Omniglot(None, data_root)
        assert {name: len(tasks) for name, tasks in suite.tasks("test").items()} == {
            "5-way-1-shot": 1000,
            "5-way-5-shot": 1000,
            "20-way-1-shot": 1000,
            "20-way-5-shot": 1000,
        }
        train = check_episode(suite, suite.train_task(0, 0))
        assert (train.support.way, len(train.support.labels), train.n_query) == (60, 300, 300)
        test = check_episode(suite, suite.tasks("test")["20-way-5-shot"][999])
        assert (test.support.way, len(test.support.labels), test.n_query) == (20, 100, 300)
        assert torch.cat([test.support.images, queries(test).images]).float().mean() > 200
