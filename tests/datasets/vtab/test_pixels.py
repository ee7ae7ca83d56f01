"""Decoding and resizing, against filters written out in float64."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lite_bench.datasets.vtab import pixels
from lite_bench.harness.errors import UnknownNameError

SIZES = st.integers(1, 40)
FLOAT32 = 3e-3
"""Of a grey level: the positions are float32, in torch as in TensorFlow."""


def encoded(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def random_image(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, high, shape).astype(np.uint8)


def half_pixel_matrix(n: int, size: int) -> np.ndarray:
    """Bilinear interpolation at half-pixel centres, without antialiasing, as a matrix [size, n]."""
    matrix = np.zeros((size, n))
    for row in range(size):
        centre = max((row + 0.5) * n / size - 0.5, 0)
        left = min(math.floor(centre), n - 1)
        matrix[row, left] += 1 - (centre - left)
        matrix[row, min(left + 1, n - 1)] += centre - left
    return matrix


def filter_matrix(n: int, size: int, kernel: Callable[[float], float], radius: float) -> np.ndarray:
    """An antialiased filter as a matrix [size, n]: the kernel is stretched when the image shrinks."""
    stretch = max(n / size, 1)
    matrix = np.zeros((size, n))
    for row in range(size):
        centre = (row + 0.5) * n / size
        for column in range(n):
            offset = (column + 0.5 - centre) / stretch
            if abs(offset) < radius:
                matrix[row, column] = kernel(offset)
    normalised: np.ndarray = matrix / matrix.sum(1, keepdims=True)
    return normalised


def lanczos3(x: float) -> float:
    return float(np.sinc(x) * np.sinc(x / 3))


def triangle(x: float) -> float:
    return 1 - abs(x)


def apply(rows: np.ndarray, columns: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Resize [h, w, c] to [c, S, S]."""
    resized: np.ndarray = np.einsum("ah,bw,hwc->cab", rows, columns, image.astype(np.float64), optimize=True)
    return resized


@settings(max_examples=40, deadline=None)
@given(height=SIZES, width=SIZES, size=SIZES)
def test_bilinear_is_the_plain_interpolation(height: int, width: int, size: int) -> None:
    image = random_image(height, width, 3)
    result = pixels.bilinear(encoded(image), size)
    expected = apply(half_pixel_matrix(height, size), half_pixel_matrix(width, size), image)
    assert result.dtype == np.float32
    assert result.shape == (3, size, size)
    np.testing.assert_allclose(result, expected, atol=FLOAT32)


def test_bilinear_neither_rounds_nor_antialiases() -> None:
    lines = np.zeros((8, 8, 3), np.uint8)
    lines[:, 1::4] = lines[:, 2::4] = 255
    assert (pixels.bilinear(encoded(lines), 2) == 255).all()  # an antialiasing filter would give about 127
    assert pixels.bilinear(encoded(random_image(5, 5, 3)), 4).astype(int).tolist() != (
        pixels.bilinear(encoded(random_image(5, 5, 3)), 4).tolist()
    )


def pillow(image: np.ndarray, size: int, kernel: Callable[[float], float], radius: float) -> np.ndarray:
    """Filter [h, w, c] to [c, S, S] as Pillow does, which rounds halves up after each of its passes."""
    height, width = image.shape[:2]
    across = apply(np.eye(height), filter_matrix(width, size, kernel, radius), image)
    across = np.clip(np.floor(across + 0.5), 0, 255).transpose(1, 2, 0)
    both = apply(filter_matrix(height, size, kernel, radius), np.eye(size), across)
    rounded: np.ndarray = np.clip(np.floor(both + 0.5), 0, 255)
    return rounded


FILTERS = [(pixels.lanczos, lanczos3, 3), (pixels.pillow_bilinear, triangle, 1)]


@settings(max_examples=40, deadline=None)
@given(height=SIZES, width=SIZES, size=SIZES)
def test_lanczos_and_pillow_bilinear(height: int, width: int, size: int) -> None:
    image = random_image(height, width, 3)
    for resize, kernel, radius in FILTERS:
        result = resize(encoded(image), size)
        assert result.dtype == np.uint8
        assert result.shape == (3, size, size)
        # What lies on a half between the passes may go either way, and the second one amplifies it a little.
        assert abs(result - pillow(image, size, kernel, radius)).max() <= 2


@pytest.mark.parametrize(("height", "width", "size"), [(320, 240, 84), (240, 320, 84), (96, 96, 224), (360, 480, 224)])
def test_lanczos_and_pillow_bilinear_to_the_level(height: int, width: int, size: int) -> None:
    image = random_image(height, width, 3)
    for resize, kernel, radius in FILTERS:
        difference = abs(resize(encoded(image), size) - pillow(image, size, kernel, radius))
        assert difference.max() <= 1
        assert difference.mean() < 0.02


@settings(max_examples=40, deadline=None)
@given(height=SIZES, width=SIZES, size=SIZES)
def test_one_call_of_pillow_is_the_same_where_it_begins_with_the_rows(height: int, width: int, size: int) -> None:
    image = random_image(min(height, width), width, 3)
    for resize, kernel in ((pixels.lanczos, Image.Resampling.LANCZOS), (pixels.pillow_bilinear, 2)):
        once = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling(kernel)))
        assert (resize(encoded(image), size) == once.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("size", [16, 64, 84, 224])
def test_lanczos_binary_is_the_float_path(size: int) -> None:
    sprite = random_image(64, 64, high=2)
    result = pixels.lanczos_binary(encoded(sprite), size)
    matrix = filter_matrix(64, size, lanczos3, 3)
    exact = apply(matrix, matrix, 255.0 * sprite[..., None])
    assert size <= 64 or (exact.min() < -20 and exact.max() > 275)  # it does overshoot
    near = abs(result - np.trunc(np.clip(exact, 0, 255)))
    assert near.max() <= 1
    # Truncation turns an error of 1e-5 into one grey level, but only just below a whole number.
    assert (near > 0).mean() < 0.01
    assert (result[0] == result[1]).all()
    assert (result[0] == result[2]).all()


def test_lanczos_binary_is_what_pillow_makes_of_floats() -> None:
    sprite = random_image(64, 64, high=2)
    image = Image.fromarray(sprite * 255.0).resize((224, 224), Image.Resampling.LANCZOS).convert("RGB")
    assert (pixels.lanczos_binary(encoded(sprite), 224) == np.asarray(image).transpose(2, 0, 1)).all()
    eight_bits = Image.fromarray(sprite * np.uint8(255)).resize((224, 224), Image.Resampling.LANCZOS)
    difference = abs(np.asarray(eight_bits).astype(int) - pixels.lanczos_binary(encoded(sprite), 224)[0])
    assert difference.max() > 30
    assert (difference > 0).mean() > 0.5


def test_grey_paths() -> None:
    grey = random_image(96, 96)
    resized = np.asarray(Image.fromarray(grey).resize((84, 84), Image.Resampling.LANCZOS))
    assert (pixels.lanczos_grey(encoded(grey), 84) == resized).all()
    assert (pixels.lanczos_grey(encoded(grey), 84) == pixels.lanczos(encoded(grey), 84)).all()
    sprite = random_image(64, 64, high=2)
    matrix = half_pixel_matrix(64, 84)
    expected = apply(matrix, matrix, np.repeat(255.0 * sprite[..., None], 3, axis=2))
    np.testing.assert_allclose(pixels.bilinear_binary(encoded(sprite), 84), expected, atol=FLOAT32)


@pytest.mark.parametrize("name", pixels.RULES)
@pytest.mark.parametrize("size", [84, 224])
def test_a_constant_image(name: str, size: int) -> None:
    value = 1 if name.endswith("binary") else 77
    resized = pixels.resize_rule(name)(encoded(np.full((64, 48), value, np.uint8)), size)
    assert resized.shape == (3, size, size)
    # Float filters of Pillow may end just below 255, and the fraction is dropped.
    level = 255 if name.endswith("binary") else 77
    assert abs(resized.astype(np.float64) - level).max() <= (1 if name == "lanczos_binary" else 1e-4)
    mapped = resized.astype(np.float64) / 127.5 - 1
    assert abs(mapped - (level / 255 * 2 - 1)).max() <= (2 / 255 if name == "lanczos_binary" else 1e-6)


def rgb(data: bytes) -> np.ndarray:
    image = pixels.decode_rgb(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_grey_alpha_palette_and_sixteen_bits() -> None:
    grey, colour = random_image(6, 5), random_image(6, 5, 3)
    assert (rgb(encoded(grey)) == grey[..., None]).all()
    assert (rgb(encoded(np.dstack([colour, grey]))) == colour).all()  # alpha is dropped
    assert (rgb(encoded(np.dstack([grey, colour[..., 0]]), mode="LA")) == grey[..., None]).all()
    assert set(np.unique(rgb(encoded(grey > 127)))) == {0, 255}
    few = random_image(6, 5, high=3)
    palette = Image.fromarray(few)
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for transparency in (None, 1, bytes([0, 128, 255])):
        buffer = io.BytesIO()
        palette.save(buffer, "PNG", **({} if transparency is None else {"transparency": transparency}))
        assert (rgb(buffer.getvalue()) == np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])[few]).all()
    sixteen = np.random.default_rng(0).integers(0, 65536, (6, 5)).astype(np.uint16)
    assert (rgb(encoded(sixteen)) == (sixteen // 256)[..., None]).all()


def test_transparent_grey_and_colour_without_alpha() -> None:
    grey, colour = random_image(6, 5), random_image(6, 5, 3)
    assert (rgb(encoded(grey, transparency=int(grey[0, 0]))) == grey[..., None]).all()
    assert (rgb(encoded(colour, transparency=tuple(colour[0, 0].tolist()))) == colour).all()


def test_cmyk_animation_and_orientation() -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1], ink[..., 3] = 255, 51
    image = Image.merge("CMYK", [Image.fromarray(ink[..., c]) for c in range(4)])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100)
    assert abs(rgb(buffer.getvalue()).astype(int) - [204, 0, 204]).max() <= 3
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (200, 100)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert (rgb(buffer.getvalue()) == 200).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    assert rgb(encoded(random_image(4, 9, 3), exif=exif)).shape == (4, 9, 3)


CUT_PNG, CUT_JPEG = (encoded(random_image(40, 40, 3), kind)[:400] for kind in ("PNG", "JPEG"))


@pytest.mark.parametrize("data", [b"", b"junk", CUT_PNG, CUT_JPEG])
@pytest.mark.parametrize("decode", [pixels.decode_rgb, pixels.decode_grey])
def test_what_does_not_decode(data: bytes, decode: Callable[[bytes], Image.Image]) -> None:
    with pytest.raises(Exception, match=r".+"):
        decode(data)


def test_colour_where_grey_belongs() -> None:
    with pytest.raises(ValueError, match="channels RGB"):
        pixels.lanczos_grey(encoded(random_image(4, 4, 3)), 8)
    with pytest.raises(UnknownNameError, match="lanczos"):
        pixels.resize_rule("lanczo")
