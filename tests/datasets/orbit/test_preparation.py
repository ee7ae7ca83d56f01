"""From downloads to roots: the files, interruptions, and downloads that are damaged or are others."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.orbit.annotations import frames_with_object
from lite_bench.datasets.orbit.preparation import RELEASES, prepare_root, resized
from lite_bench.datasets.orbit.published import SPLITS
from lite_bench.datasets.orbit.scan import open_dataset
from lite_bench.harness.errors import DataError, RunError
from lite_bench.harness.files import locked
from tests.datasets.orbit.trees import N_FRAMES, N_VIDEOS, USERS, content, jpeg, pack, write_tree

RELEASED, SMALL = RELEASES["orbit_224"], RELEASES["orbit_84"]
VIDEOS = sum(N_VIDEOS.values())


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of 224-pixel frames."""
    return write_tree(tmp_path_factory.mktemp("released") / "orbit_benchmark_224", size=224)


@pytest.fixture(scope="module")
def archives(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, packed; do not write to it."""
    return pack(released, tmp_path_factory.mktemp("downloads") / "a")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of frames of 240 pixels, which stands for the full-size release."""
    return write_tree(tmp_path_factory.mktemp("full") / "orbit_benchmark", size=240)


def frames(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in content(root).items() if name.endswith(".jpg")}


def test_archives_are_unpacked(released: Path, archives: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = prepare_root(RELEASED, archives, tmp_path, workers=2, progress=lambda *done: told.append(done))
    assert report.root == tmp_path / "orbit_benchmark_224"
    assert (report.videos, report.written, report.absent, report.unannotated) == (VIDEOS, VIDEOS, (), SPLITS)
    assert told == [(number, VIDEOS) for number in range(VIDEOS + 1)]
    assert frames(report.root) == frames(released)
    assert set(content(report.root)) - set(frames(report.root)) == {"preparation.json"}
    assert open_dataset(report.root).fingerprints == open_dataset(released).fingerprints


@pytest.mark.parametrize("above", ["", "./{split}/", "orbit_benchmark_224/{split}/"])
def test_archives_may_begin_with_users_or_with_folders_above(released: Path, tmp_path: Path, above: str) -> None:
    downloads = pack(released, tmp_path / "downloads", above)
    report = prepare_root(RELEASED, downloads, tmp_path)
    assert frames(report.root) == frames(released)


def test_object_folders_keep_their_spaces(archives: Path, tmp_path: Path) -> None:
    root = prepare_root(RELEASED, archives, tmp_path).root
    assert sorted(path.name for path in (root / "test/P177").iterdir()) == sorted(USERS["test"]["P177"])
    assert "front door" in USERS["test"]["P177"]


def lanczos(data: bytes) -> np.ndarray:
    """What the authors' rule gives, decoded again."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").resize((84, 84), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=95
    )
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_full_frames_become_small_ones(full: Path, tmp_path: Path, *, packed: bool, inside: bool) -> None:
    downloads = pack(full, tmp_path / "downloads") if packed else full
    if inside:  # the authors' script downloads to orbit_benchmark
        (tmp_path / "above").mkdir()
        (tmp_path / "above/orbit_benchmark").symlink_to(downloads, target_is_directory=True)
        downloads = tmp_path / "above"
    report = prepare_root(SMALL, downloads, tmp_path, workers=2)
    assert report.root == tmp_path / "orbit_benchmark_84"
    before, after = frames(full), frames(report.root)
    assert set(after) == set(before)
    assert len(after) == sum(N_FRAMES.values())
    for name in list(after)[::5]:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(after[name]))), lanczos(before[name]))
    assert len(list(open_dataset(report.root).videos())) == VIDEOS


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_frames_of_other_modes_become_rgb(mode: str) -> None:
    data = jpeg("a", 240, mode)
    small = Image.open(io.BytesIO(resized(data, "here")))
    assert (small.mode, small.size) == ("RGB", (84, 84))
    np.testing.assert_array_equal(np.asarray(small), lanczos(data))


# --- interruptions


class Stopped(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [0, 1, 7, 23])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_stopped_preparation_goes_on(
    archives: Path, released: Path, tmp_path: Path, after: int, workers: int
) -> None:
    encoded = 0

    def stop(data: bytes, place: str) -> bytes:
        nonlocal encoded
        if encoded == after:
            raise Stopped(place)
        encoded += 1
        return data

    with pytest.raises(Stopped):
        prepare_root(replace(RELEASED, encode=stop), archives, tmp_path, workers=workers)
    root = tmp_path / "orbit_benchmark_224"
    whole, halves = frames(released), frames(root)
    for video in {name.rpartition("/")[0] for name in halves}:  # each is whole
        of_video = {name: data for name, data in whole.items() if name.startswith(f"{video}/")}
        assert {name: data for name, data in halves.items() if name.startswith(f"{video}/")} == of_video
    with pytest.raises(
        DataError, match=r"The preparation of .* is not finished; repeat `lite-bench data prepare orbit_2"
    ):
        open_dataset(root)
    done = len({name.rpartition("/")[0] for name in halves})
    told: list[tuple[int, int]] = []
    report = prepare_root(RELEASED, archives, tmp_path, progress=lambda *done: told.append(done))
    assert told[0] == (done, VIDEOS)
    assert report.written == VIDEOS - done
    assert frames(root) == whole
    assert not list(root.rglob(".*.tmp"))


def test_what_was_begun_is_finished_first(archives: Path, downloads: Path, tmp_path: Path) -> None:
    def stop(data: bytes, place: str) -> bytes:
        raise Stopped(place, len(data))

    with pytest.raises(Stopped):
        prepare_root(replace(RELEASED, encode=stop), archives, tmp_path)
    (downloads / "train.zip").unlink()
    with pytest.raises(DataError, match=r"does not hold the originals of train, with which an earlier call began"):
        prepare_root(RELEASED, downloads, tmp_path)
    record = tmp_path / "orbit_benchmark_224/preparation.json"
    assert json.loads(record.read_text()) == {"source": "orbit_224", "finished": False, "begun": sorted(SPLITS)}
    prepare_root(RELEASED, archives, tmp_path)
    assert json.loads(record.read_text()) == {"source": "orbit_224", "finished": True, "begun": []}
    record.write_text("{")
    with pytest.raises(RunError, match=r"preparation\.json cannot be read or is damaged; delete"):
        prepare_root(RELEASED, archives, tmp_path)


def test_what_is_complete_is_left_alone(archives: Path, tmp_path: Path) -> None:
    root = prepare_root(RELEASED, archives, tmp_path).root
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    assert prepare_root(RELEASED, archives, tmp_path).written == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")} == times
    victim = next(iter(times)).parent
    shutil.rmtree(victim)
    assert prepare_root(RELEASED, archives, tmp_path).written == 1
    assert victim.is_dir()


def test_splits_and_annotations_may_come_later(released: Path, tmp_path: Path) -> None:
    downloads = pack(released, tmp_path / "downloads", splits=("test",))
    report = prepare_root(RELEASED, downloads, tmp_path)
    assert (report.videos, report.absent) == (N_VIDEOS["test"], ("train", "validation"))
    dataset = open_dataset(report.root)
    assert dataset.users["train"] == {}
    with zipfile.ZipFile(downloads / "orbit_extra_annotations.zip", "w") as archive:
        for video in dataset.videos():
            entries = {video.frame(n): {"object_not_present_issue": n == 0} for n in range(video.n_frames)}
            archive.writestr(f"orbit_extra_annotations/test/{video.name}.json", json.dumps(entries))
    pack(released, downloads, splits=("validation",))
    report = prepare_root(RELEASED, downloads, tmp_path)
    assert report.videos == N_VIDEOS["test"] + N_VIDEOS["validation"]
    assert report.written == N_VIDEOS["validation"] + 1  # and the annotations
    assert (report.absent, report.unannotated) == (("train",), ("validation",))
    for video in dataset.videos():
        shown = frames_with_object(report.root, "test", video)
        assert shown.tolist() == [False] + [True] * (video.n_frames - 1)


def test_only_one_process_prepares_a_root(archives: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "orbit_benchmark_224/.preparation.lock", ""),
        pytest.raises(RunError, match="Another process is preparing"),
    ):
        prepare_root(RELEASED, archives, tmp_path)


def test_a_root_that_something_else_made_is_left_alone(archives: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "orbit_benchmark_224", {"test": {"P177": {"keys": ((1, 1), (1,))}}})
    with pytest.raises(RunError, match="holds test, which no preparation wrote; name another --output-dir"):
        prepare_root(RELEASED, archives, tmp_path)


def test_a_full_disk_is_named(archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(RunError, match="The disk is full: could not write"):
        prepare_root(RELEASED, archives, tmp_path)


# --- downloads that will not do


def repack(archive: Path, change: Callable[[str], str | None]) -> None:
    """Rename the files of an archive; those renamed to None are left out."""
    with zipfile.ZipFile(archive) as packed:
        files = {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in files.items():
            if (new := change(name)) is not None:
                packed.writestr(new, data)


@pytest.fixture
def downloads(archives: Path, tmp_path: Path) -> Path:
    return shutil.copytree(archives, tmp_path / "spoilt")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda name: name.replace("/clutter/", "/clutter-pan/"), r"test\.zip holds the unfiltered ORBIT dataset"),
        (lambda name: name.replace("/clutter/", "/dirty/"), r"is not a frame of test/<user>/<object>"),
        (lambda name: name.replace("test/P", "train/P"), r"is not a frame of test/<user>/<object>"),
        (lambda name: None if name.endswith("-00001.jpg") else name, r"lacks P177--.*-00001\.jpg"),
        (lambda name: name.replace("-00002.jpg", "-2.jpg"), r"is not named as a frame of that video"),
        (lambda name: name.rpartition("/")[2], r"does not lie as frames do, test/<user>/<object>"),
        (lambda name: name.replace("/P177/", "/../"), r"does not lie as frames do"),
        (lambda name: name.replace("/P177/", "/P177\\\\..\\\\"), r"does not lie as frames do"),
        (lambda name: f"/{name}" if name.endswith(".jpg") else name, r"does not lie as frames do"),
        (lambda name: None if name.endswith(".jpg") else name, r"test\.zip holds no frames"),
    ],
)
def test_archives_of_other_things_are_refused(
    downloads: Path, tmp_path: Path, change: Callable[[str], str | None], problem: str
) -> None:
    repack(downloads / "test.zip", change)
    before = content(tmp_path)
    with pytest.raises(DataError, match=problem) as caught:
        prepare_root(RELEASED, downloads, tmp_path / "out")
    assert "test.zip" in str(caught.value)
    assert content(tmp_path) == before


def test_damaged_archives_are_named(downloads: Path, tmp_path: Path) -> None:
    archive = downloads / "test.zip"
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"original .*test\.zip cannot be read .*; download or unpack it again"):
        prepare_root(RELEASED, downloads, tmp_path / "out")
    flipped = bytearray(data)
    flipped[len(data) // 3] ^= 64
    archive.write_bytes(flipped)
    with pytest.raises(DataError, match=r"original .*\.jpg in .*test\.zip cannot be read"):
        prepare_root(RELEASED, downloads, tmp_path / "out")
    archive.write_bytes(data)
    report = prepare_root(RELEASED, downloads, tmp_path / "out")
    assert len(frames(report.root)) == sum(N_FRAMES.values())


def test_the_other_release_is_refused(archives: Path, full: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is 224x224 pixels; 84-pixel frames are made from the full-size release"):
        prepare_root(SMALL, archives, tmp_path)
    with pytest.raises(DataError, match=r"is 240x240 pixels, not 224x224; name the folder of the 224-pixel release's"):
        prepare_root(RELEASED, pack(full, tmp_path / "downloads"), tmp_path)


@pytest.mark.parametrize("source", list(RELEASES))
def test_an_empty_folder_comes_with_what_is_needed(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError, match=r"holds none of the originals of orbit_\d+: train\.zip, .* from https://city"):
        prepare_root(RELEASES[source], tmp_path / "nothing", tmp_path)


@pytest.mark.parametrize("source", list(RELEASES))
@pytest.mark.parametrize("keep", [0, 200, -60])
def test_broken_frames_are_named(source: str, keep: int) -> None:
    data = jpeg("a", 240)[:keep]
    if source == "orbit_224" and keep != 0:
        data = data[:2]  # only the header of a frame that is kept is looked at; the archive's checksum vouches for it
    with pytest.raises(DataError, match=r"The frame here is .*; download or unpack it again"):
        RELEASES[source].encode(data, "here")
