"""Frames are decoded as they are, each once, and bad ones are named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite_bench.datasets.orbit import frames
from lite_bench.datasets.orbit.frames import read_frame, read_frames
from lite_bench.datasets.orbit.videos import Video
from lite_bench.harness.errors import DataError
from tests.datasets.orbit.trees import jpeg, write_video


@pytest.fixture
def video(tmp_path: Path) -> Video:
    return write_video(tmp_path, "test", "P177", "front door", "clutter", 0, 5, 24)


def decoded(path: Path) -> np.ndarray:
    """uint8 [3, S, S] by Pillow alone."""
    with Image.open(path) as image:
        return np.stack([np.asarray(band) for band in image.convert("RGB").split()])


def test_pixels_are_those_of_the_file(video: Video) -> None:
    for position in range(5):
        path = video.folder / video.frame(position)
        found = read_frame(path, 24)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, decoded(path))
        out = np.zeros((3, 24, 24), np.uint8)
        assert read_frame(path, 24, out) is out
        np.testing.assert_array_equal(out, found)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(jpeg("a", 16, mode))
    with Image.open(path) as image:
        assert image.mode == mode
    np.testing.assert_array_equal(read_frame(path, 16), decoded(path))


def test_frames_come_in_the_order_asked_for_and_are_decoded_once(
    video: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_video(tmp_path, "test", "P177", "keys", "clean", 1, 2, 24)
    read: list[Path] = []

    def count(path: Path, size: int, out: np.ndarray | None = None) -> np.ndarray:
        read.append(path)
        return read_frame(path, size, out)

    monkeypatch.setattr(frames, "read_frame", count)
    asked = [(video, 4), (other, 1), (video, 0), (video, 4), (video, 4), (other, 0), (video, 1), (other, 1)]
    found = read_frames(asked, 24)
    assert found.shape == (8, 3, 24, 24)
    assert len(read) == len(set(read)) == 5
    for (each, position), pixels in zip(asked, found, strict=True):
        np.testing.assert_array_equal(pixels, decoded(each.folder / each.frame(position)))


def test_no_frames_are_no_error() -> None:
    assert read_frames([], 16).shape == (0, 3, 16, 16)


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-60])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_bytes(b"This is not a picture. " * 20)
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("missing", "is missing; delete the folder of its video, then download, unpack or prepare that again"),
        ("truncated", "is truncated or damaged"),
        ("empty", "is not an image that Pillow can read"),
        ("text", "is not an image that Pillow can read"),
        ("folder", "Is a directory"),
    ],
)
def test_bad_frames_are_named(video: Video, how: str, problem: str) -> None:
    path = video.folder / video.frame(2)
    spoil(path, how)
    with pytest.raises(DataError, match=problem) as caught:
        read_frames([(video, position) for position in range(5)], 24)
    assert str(path) in str(caught.value)


def test_frames_of_another_size_are_not_resized(video: Video) -> None:
    with pytest.raises(DataError, match=r"is 24x24 pixels, not the 84x84 asked for; give --image-size 24 or") as caught:
        read_frames([(video, 0)], 84)
    assert str(video.folder / video.frame(0)) in str(caught.value)
    assert "or make frames of that size (`lite-bench data prepare orbit_84 --from" in str(caught.value)


def test_a_frame_unlike_its_roots_name_is_no_matter_of_the_image_size(tmp_path: Path) -> None:
    root = tmp_path / "orbit_benchmark_24"
    video = write_video(root, "test", "P177", "keys", "clean", 0, 1, 17)
    with pytest.raises(DataError, match=r"is 17x17 pixels, not the 24x24 asked for; delete the folder") as caught:
        read_frames([(video, 0)], 24)
    assert str(caught.value).endswith(f"; if all frames have that size, rename {root}.")


def test_no_image_size_is_proposed_for_a_frame_that_is_not_square(video: Video) -> None:
    path = video.folder / video.frame(0)
    buffer = io.BytesIO()
    Image.new("RGB", (24, 30)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="is 24x30 pixels, not the 24x24 asked for; delete the folder of its video"):
        read_frame(path, 24)


def test_a_forbidden_frame_is_named(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Image.Image:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DataError, match="may not be read; change its permissions"):
        read_frame(video.folder / video.frame(0), 24)
