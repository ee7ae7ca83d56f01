"""Images as bytes and as float32 on the same scale, and the range that networks see."""

from __future__ import annotations

import pytest
import torch

from lite_bench.harness.assembly import assemble, build_backbone, use_signed_pixels
from lite_bench.harness.core import Support
from lite_bench.harness.errors import IncompatibleError
from lite_bench.models.pixels import normalised
from tests.harness.small import small_settings


def some_images(n: int = 4, side: int = 28) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(3)).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_numbers_give_the_same_values_as_bytes_and_are_left_alone(channels: int) -> None:
    images = some_images()
    generator = torch.Generator().manual_seed(channels)
    mean, std = (torch.rand(1, channels, 1, 1, generator=generator) + 0.5 for _ in range(2))
    floats = images.float()
    kept = floats.clone()
    assert torch.equal(normalised(images, mean, std), normalised(floats, mean, std))
    assert torch.equal(floats, kept)
    expected = images.double().div(255)
    if channels == 1:
        expected = expected.mean(1, keepdim=True)
    torch.testing.assert_close(normalised(images, mean, std).double(), (expected - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learner", ["protonets", "cnaps", "simple_cnaps", "finetuner", "fomaml"])
def test_every_learner_takes_images_that_are_not_rounded(learner: str) -> None:
    settings = small_settings(learner=learner, image_size=32, backbone="conv4+gn")
    assembly = assemble(settings, 32)
    images = some_images(8, 32)
    labels = torch.arange(8) % 2
    logits = []
    for kind in (images, images.float(), images.float() + 0.25):
        support = Support(kind, labels, 2)
        encode = assembly.estimator.begin(support, torch.Generator()).encode()
        with torch.no_grad():
            logits.append(assembly.learner.classify(assembly.learner.adapt(support, encode), kind))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("value", [0, 51, 128, 255])
def test_signed_pixels_are_v_over_127_5_minus_1(value: int) -> None:
    backbone = build_backbone("conv4", image_size=28, pretrained=False)
    use_signed_pixels(backbone, "conv4")
    found = backbone.scale(torch.full((1, 3, 28, 28), value, dtype=torch.uint8))  # type: ignore[operator]  # a module's method
    torch.testing.assert_close(found, torch.full_like(found, value / 127.5 - 1))


def test_the_set_encoder_sees_the_same_range() -> None:
    settings = small_settings(learner="simple_cnaps", backbone="conv4+gn", image_size=32, pixel_range="signed")
    signed = assemble(settings, 32)
    buffers = {name: value for name, value in signed.module.named_buffers() if name.endswith(("mean", "std"))}
    ranges = {name: value for name, value in buffers.items() if value.dim() == 4}
    assert len(ranges) >= 4
    assert all(bool((value == 0.5).all()) for value in ranges.values())


def test_a_backbone_without_a_range_to_set_is_refused() -> None:
    with pytest.raises(IncompatibleError, match=r"\[-1, 1\], but backbone bare has no buffers mean and std"):
        use_signed_pixels(torch.nn.Linear(2, 2), "bare")
