"""The converters by source. A converter's module is imported when it is asked for."""

from __future__ import annotations

import importlib

from lite_bench.datasets.conversion.plan import Converter
from lite_bench.harness.errors import UnknownNameError

CONVERTERS: dict[str, str] = {
    "ilsvrc_2012": "imagenet:ImageNet",
    "ilsvrc_2012_v2": "imagenet:ImageNetV2",
    "omniglot": "omniglot:Omniglot",
    "aircraft": "aircraft:Aircraft",
    "cu_birds": "cu_birds:CUBirds",
    "dtd": "dtd:DTD",
    "quickdraw": "quickdraw:Quickdraw",
    "fungi": "fungi:Fungi",
    "vgg_flower": "vgg_flower:VGGFlower",
    "traffic_sign": "traffic_sign:TrafficSign",
    "mscoco": "mscoco:MSCOCO",
    "mnist": "mnist:MNIST",
}
"""Module in this package and class, by source."""


def converter(name: str, *, check_published: bool = True) -> Converter:
    """Make the converter of a source.

    Args:
        name: of the source, such as ``aircraft``.
        check_published: insist on exactly the published classes and image counts; off for stand-ins.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in CONVERTERS:
        raise UnknownNameError("source to convert called", name, CONVERTERS)
    module, _, kind = CONVERTERS[name].partition(":")
    made: Converter = getattr(importlib.import_module(f"{__package__}.{module}"), kind)(check_published=check_published)
    return made
