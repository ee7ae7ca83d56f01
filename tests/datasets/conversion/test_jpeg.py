"""JPEG bytes of records: originals kept or encoded again as Meta-Dataset's converters do."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from lite_bench.datasets.conversion.jpeg import decode, jpeg_bytes, original_or_jpeg
from lite_bench.harness.errors import DataError


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
    """Make a smooth image, which JPEG changes little."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image as a file of some kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_encoding_is_pillows_default() -> None:
    data = jpeg_bytes(picture())
    assert data == file_of(picture(), "JPEG", quality=75, subsampling="4:2:0")
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        assert (image.mode, image.size) == ("RGB", (40, 30))
        assert JpegImagePlugin.get_sampling(image) == 2


@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"progressive": True, "exif": b"Exif\0\0"}])
def test_an_rgb_jpeg_is_kept_to_the_byte(options: dict[str, object]) -> None:
    data = file_of(picture(), "JPEG", **options)
    assert original_or_jpeg(data, "a.jpg") == data


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (8, 8)])
def test_tiny_images_are_kept_too(size: tuple[int, int]) -> None:
    data = file_of(picture(size=size), "JPEG")
    assert original_or_jpeg(data, "a.jpg") == data


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("RGB", "PPM")]
)
def test_other_images_are_encoded_as_rgb(mode: str, kind: str) -> None:
    data = file_of(picture(mode), kind)
    encoded = original_or_jpeg(data, "a")
    with Image.open(io.BytesIO(data)) as image:
        assert encoded == file_of(image.convert("RGB"), "JPEG")
        assert np.array_equal(np.asarray(decode(data, "a")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_image_is_named(mode: str, share: float) -> None:
    data = file_of(picture(mode, (400, 300)), "JPEG")
    for read in (original_or_jpeg, decode):
        with pytest.raises(DataError, match=r"^The image x/a.jpg is damaged \(.+\); download or unpack it again\.$"):
            read(data[: int(share * len(data))], "x/a.jpg")


@pytest.mark.parametrize("data", [b"", b"<html>404</html>"])
def test_what_is_no_image_is_named(data: bytes) -> None:
    for read in (original_or_jpeg, decode):
        with pytest.raises(DataError, match=r"x/a.jpg is not an image that Pillow can read; download or unpack"):
            read(data, "x/a.jpg")
