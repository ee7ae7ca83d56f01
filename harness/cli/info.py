"""``lite-bench info``."""

from __future__ import annotations

import copy
from typing import Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import print_json, print_table


def info(
    learner: Annotated[str, typer.Argument(help="See `lite-bench list learners`.")],
    backbone: flags.BackboneFlag = None,
    image_size: Annotated[int, typer.Option("--image-size", help="Side of the images in pixels.")] = 224,
    param: flags.ParamFlag = None,
    json: flags.JsonFlag = False,
) -> None:
    """Show a learner's parameters by part, trainable or not, its FiLM sites, and the MACs of one image.

    Example: `lite-bench info simple_cnaps --backbone efficientnet_b0`
    """
    from lite_bench.harness.assembly import build_learner
    from lite_bench.harness.settings import resolve

    given = {"learner": learner, "backbone": backbone, "params": flags.learner_params(param), "pretrained": False}
    settings = resolve(given, None)
    _, module = build_learner(settings, image_size)
    content = describe(module, image_size)
    if json:
        print_json({"learner": learner, "backbone": settings.backbone, "image_size": image_size, **content})
        return
    rows = [[p["part"], f"{p['parameters']:,}", f"{p['trainable']:,}"] for p in content["parts"]]
    rows.append(["total", f"{content['parameters']:,}", f"{content['trainable']:,}"])
    print_table(["part", "parameters", "trainable"], rows, title=f"{learner}, {settings.backbone}, {image_size} pixels")
    sites = content["film_sites"]
    if sites:
        channels = sum(site["channels"] for site in sites)
        typer.echo(f"\nFiLM: {len(sites)} sites, {channels:,} channels")
        print_table(["site", "channels"], [[site["name"], str(site["channels"])] for site in sites])
    typer.echo("")
    print_table(NETWORK_COLUMNS, network_rows(content["macs_per_image"]))


NETWORK_COLUMNS = ("network", "MACs per image", "thop's count", "why they differ")


def network_rows(counted: list[dict[str, Any]]) -> list[list[str]]:
    """List MACs per image of networks, beside thop's, for people."""
    return [
        [
            each["network"],
            f"{each['macs'] / 1e9:.3f} G",
            "–" if each["thop"] is None else f"{each['thop'] / 1e9:.3f} G",
            "; ".join(each["thop_causes"]),
        ]
        for each in counted
    ]


def describe(module: Any, image_size: int) -> dict[str, Any]:
    """Count parameters by part, list FiLM sites and count MACs of every network that sees images."""
    from lite_bench.harness.measurement.parts import parts as parts_of

    parts = [_count(name, part) for name, part in parts_of(module).items()]
    sites = [
        {"name": site.name, "channels": site.channels}
        for child in module.modules()
        for site in getattr(child, "sites", ())
    ]
    return {
        "parts": parts,
        "parameters": sum(p["parameters"] for p in parts),
        "trainable": sum(p["trainable"] for p in parts),
        "film_sites": sites,
        "macs_per_image": macs_of_networks(module, image_size),
    }


def _count(name: str, part: Any) -> dict[str, Any]:
    from lite_bench.harness.measurement.parts import parameters_of

    parameters = parameters_of(part)
    total = sum(p.numel() for p in parameters)
    return {"part": name, "parameters": total, "trainable": sum(p.numel() for p in parameters if p.requires_grad)}


def macs_of_networks(module: Any, image_size: int) -> list[dict[str, Any]]:
    """Count the parts that map one uint8 image to features; with thop's count as a cross-check, explained."""
    import torch

    from lite_bench.harness.measurement.macs import count_macs, explain_thop
    from lite_bench.harness.measurement.parts import parts

    image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
    counted = []
    for name, part in parts(module.eval()).items():
        if not isinstance(part, torch.nn.Module):
            continue
        part = copy.deepcopy(part).cpu()
        try:
            macs = count_macs(part, image)
        except (RuntimeError, TypeError, NotImplementedError):
            continue  # this part takes no images
        try:
            thop = explain_thop(part, image)
        except Exception:  # thop is not kept up, and only a cross-check
            counted.append({"network": name, "macs": macs, "thop": None, "thop_causes": []})
        else:
            counted.append({"network": name, "macs": macs, "thop": thop.thop, "thop_causes": [*map(str, thop.causes)]})
    return counted
