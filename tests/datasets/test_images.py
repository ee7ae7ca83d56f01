"""Any image becomes a square of RGB bytes; a bad one is named."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lite_bench.datasets.images import ImageCache, read_image, square, to_rgb
from lite_bench.harness.errors import DataError

RED = (200, 30, 30)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("mode", "suffix", "colour", "expected"),
    [
        ("1", "png", 1, (255, 255, 255)),
        ("L", "png", 77, (77, 77, 77)),
        ("LA", "png", (77, 0), (255, 255, 255)),
        ("RGB", "png", RED, RED),
        ("RGB", "bmp", RED, RED),
        ("RGB", "tiff", RED, RED),
        ("RGB", "webp", (255, 255, 255), (255, 255, 255)),
        ("RGBA", "png", (*RED, 0), (255, 255, 255)),
        ("RGBA", "png", (0, 0, 0, 128), (127, 127, 127)),
        ("CMYK", "tiff", (0, 0, 0, 255), (0, 0, 0)),
        ("CMYK", "jpg", (0, 0, 0, 0), (255, 255, 255)),
        ("I;16", "png", 77 * 257, (77, 77, 77)),
        ("I;16", "tiff", 77 * 257, (77, 77, 77)),
        ("I", "tiff", 77 * 257, (77, 77, 77)),
        ("F", "tiff", 0.5, (128, 128, 128)),
        ("F", "tiff", 77.0, (77, 77, 77)),
    ],
)
def test_modes(tmp_path: Path, mode: str, suffix: str, colour: object, expected: tuple[int, ...]) -> None:
    image = Image.new(mode, (40, 30), colour)  # type: ignore[arg-type]
    pixels = read_image(saved(image, tmp_path / f"image.{suffix}"), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == expected).all()


def test_a_palette_with_a_transparent_colour_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, *RED])
    image.paste(0, (0, 0, 10, 20))
    clear = read_image(saved(image, tmp_path / "clear.png", transparency=0), 20)
    assert (clear[:, 0] == 255).all()
    assert (clear[:, -1] == RED).all()
    per_entry = read_image(saved(image, tmp_path / "bytes.png", transparency=b"\xff\x00"), 20)
    assert (per_entry[:, 0] == 0).all()
    assert (per_entry[:, -1] == 255).all()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40), "white")
    image.paste(RED, (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = read_image(saved(image, tmp_path / "turned.png", exif=exif), 40)
    assert (pixels[:, -1] == RED).all()
    assert (pixels[:, 0] == 255).all()


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    path = saved(Image.new("L", (20, 20), 9), tmp_path / "exif.png", exif=b"Exif\x00\x00broken")
    assert (read_image(path, 8) == 9).all()


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("white", "black")]
    path = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (read_image(path, 8) == 255).all()


def test_the_centre_is_cut_out(tmp_path: Path) -> None:
    image = Image.new("RGB", (90, 30), "white")
    image.paste(RED, (30, 0, 60, 30))
    assert (read_image(saved(image, tmp_path / "wide.png"), 30) == RED).all()


def test_one_step_equals_resize_then_crop() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    whole = np.asarray(image.resize((96, 48), Image.Resampling.BILINEAR))[:, 24:72]
    difference = square(image, 48).astype(int) - whole.astype(int)
    assert abs(difference).max() <= 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 64))
def test_any_size_becomes_a_square(width: int, height: int, size: int) -> None:
    image = Image.new("L", (width, height), 5)
    assert square(to_rgb(image), size).shape == (size, size, 3)


def test_a_fast_jpeg_is_close_to_the_full_decode(tmp_path: Path) -> None:
    y, x = np.mgrid[0:600, 0:800]
    smooth = np.stack([x * 255 // 800, y * 255 // 600, (x + y) % 256 // 2], -1).astype(np.uint8)
    path = saved(Image.fromarray(smooth), tmp_path / "large.jpg", quality=95)
    with Image.open(path) as image:
        full = square(image.convert("RGB"), 56)
    assert abs(read_image(path, 56).astype(int) - full.astype(int)).max() <= 8


def broken_files(folder: Path) -> dict[str, Path]:
    """Write files that are no images, in different ways."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    png = buffer.getvalue()
    contents = {
        "text.jpg": b"this is a text",
        "empty.png": b"",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header.jpg": jpeg[:40],
        "truncated.png": png[: len(png) // 2],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize("name", ["text.jpg", "empty.png", "truncated.jpg", "header.jpg", "truncated.png"])
def test_a_bad_file_is_named(tmp_path: Path, name: str) -> None:
    path = broken_files(tmp_path)[name]
    with pytest.raises(DataError, match=rf"The file .*{name} is (not an image|corrupt).*; replace it") as caught:
        read_image(path, 32, "replace it")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"away.png is gone"):
        read_image(tmp_path / "away.png", 32)


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = ImageCache(max_bytes=300)
    made: list[str] = []

    def make(key: str) -> np.ndarray:
        def build() -> np.ndarray:
            made.append(key)
            return np.zeros(100, np.uint8)

        return cache.get(key, build)

    for key in "abcabda":
        make(key)
    assert made == list("abcd")
    assert cache.n_bytes == 300
    make("c")
    assert made[-1] == "c"


def test_the_cache_passes_large_arrays_through() -> None:
    cache = ImageCache(max_bytes=10)
    assert cache.get("large", lambda: np.ones(100)).sum() == 100
    assert cache.n_bytes == 0


def test_the_cache_survives_threads() -> None:
    cache = ImageCache(max_bytes=1000)
    wrong: list[int] = []

    def work() -> None:
        for number in range(2000):
            key = number % 23
            if cache.get(key, lambda key=key: np.full(100, key, np.uint8))[0] != key:  # type: ignore[misc]
                wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.n_bytes == 1000
