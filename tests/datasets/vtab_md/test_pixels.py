"""Meta-Dataset's resizing against torch's and a plain double loop, and decoding."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from lite_bench.datasets.vtab_md.pixels import decode_jpeg, resize_aligned
from lite_bench.harness.errors import DataError


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_loop(pixels: np.ndarray, size: int) -> np.ndarray:
    """The definition in float64, one output pixel at a time."""
    height, width, _ = pixels.shape
    out = np.empty((3, size, size))
    for i in range(size):
        for j in range(size):
            y, x = (k * (n - 1) / (size - 1) for k, n in ((i, height), (j, width)))
            y0, x0 = (min(math.floor(v), n - 1) for v, n in ((y, height), (x, width)))
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            values = pixels.astype(float)
            top = values[y0, x0] * (1 - (x - x0)) + values[y0, x1] * (x - x0)
            bottom = values[y1, x0] * (1 - (x - x0)) + values[y1, x1] * (x - x0)
            out[:, i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 40))
def test_equals_the_definition(height: int, width: int, size: int) -> None:
    found = resize_aligned(noise(height, width), size)
    assert found.dtype == np.float32
    assert found.shape == (3, size, size)
    # positions are rounded to float32, so near a pixel border a neighbour weighs up to 1e-5 more or less
    np.testing.assert_allclose(found, by_loop(noise(height, width), size), atol=3e-3)


def test_the_result_may_be_written_in_place() -> None:
    place = np.full((2, 3, 16, 16), -1, np.float32)
    assert resize_aligned(noise(30, 20), 16, place[1]).base is place
    np.testing.assert_array_equal(place[1], resize_aligned(noise(30, 20), 16))
    assert np.all(place[0] == -1)


@pytest.mark.parametrize(("height", "width", "size"), [(375, 500, 224), (105, 105, 84), (28, 28, 224), (1200, 800, 84)])
def test_equals_torch_with_aligned_corners_and_nothing_else(height: int, width: int, size: int) -> None:
    pixels = noise(height, width)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    found = resize_aligned(pixels, size)
    aligned = interpolate(images, (size, size), mode="bilinear", align_corners=True)[0].numpy()
    half_pixel = interpolate(images, (size, size), mode="bilinear", align_corners=False)[0].numpy()
    assert np.abs(found - aligned).max() < 1e-4
    assert np.abs(found - half_pixel).mean() > 1


@given(st.integers(0, 255))
def test_a_constant_stays_constant_and_corners_keep_their_values(value: int) -> None:
    assert np.all(resize_aligned(np.full((7, 11, 3), value, np.uint8), 16) == value)
    pixels = noise(30, 20)
    found = resize_aligned(pixels, 16)
    np.testing.assert_array_equal(found[:, 0, 0], pixels[0, 0])
    np.testing.assert_allclose(found[:, -1, -1], pixels[-1, -1], atol=1e-2)


def test_any_mode_becomes_rgb_and_damage_is_named() -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(9, 8)[..., 0]).save(stream, "JPEG", quality=95)
    found = decode_jpeg(stream.getvalue(), "record 3 of 5.tfrecords")
    assert found.shape == (9, 8, 3)
    assert np.all(found[..., 0] == found[..., 2])
    for damaged in (stream.getvalue()[:60], b"no image"):
        with pytest.raises(DataError, match=r"record 3 of 5.tfrecords does not decode .* data verify"):
            decode_jpeg(damaged, "record 3 of 5.tfrecords")
