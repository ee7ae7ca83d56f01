"""The parts of a learner that a reader thinks in: set encoder, generators, backbone, head."""

from __future__ import annotations

from torch import nn


def parts(module: nn.Module) -> dict[str, nn.Module | nn.Parameter]:
    """List the parts of a learner by name: children, the children of a child that wraps several, own parameters."""
    found: dict[str, nn.Module | nn.Parameter] = {}
    for name, child in module.named_children():
        grand = list(child.named_children())
        wraps = len(grand) > 1 and any(hasattr(part, "features") for _, part in grand)
        found |= {f"{name}.{inner}": part for inner, part in grand} if wraps else {name: child}
    return {**found, **dict(module.named_parameters(recurse=False))}


def parameters_of(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    """List the parameters of a part."""
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def trainable_parts(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """List the parameters to meta-train by part, under the last word of its name; parts without any are left out."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, part in parts(module).items():
        own = [p for p in parameters_of(part) if p.requires_grad]
        if own:
            found.setdefault(name.rpartition(".")[2], []).extend(own)
    return found


def untouched_parts(module: nn.Module) -> list[str]:
    """Name the parts to meta-train whose gradient is missing or zero in every parameter."""
    return [
        name
        for name, parameters in trainable_parts(module).items()
        if not any(p.grad is not None and bool(p.grad.any()) for p in parameters)
    ]
