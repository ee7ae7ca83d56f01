"""Numbers as people read them. Something unknown is a word, never a zero."""

from __future__ import annotations

UNKNOWN = "unknown"
STEPS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def scaled(value: float | None, unit: str = "") -> str:
    """Write a count with three digits and a prefix: ``1.21 T``, ``398 M``; ``unit`` follows the prefix."""
    if value is None:
        return UNKNOWN
    for size, prefix in STEPS:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{prefix}{unit}" if value < 999.5 * size else f"{value / size:.0f}{prefix}{unit}"
    return f"{value:.3g}{f' {unit}' if unit else ''}"


def seconds(value: float | None) -> str:
    """Write a time with three digits: ``2.92 s``, ``35.1 ms``, ``812 µs``."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}" if value < 999.5 * size else f"{value / size:.0f} {unit}"
    return f"{value * 1e6:.3g} µs"
