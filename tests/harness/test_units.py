"""Numbers for people."""

from __future__ import annotations

import pytest

from lite_bench.harness.units import scaled, seconds


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "", "unknown"), (0, "", "0"), (7, "B", "7 B"), (999.4, "", "999"), (999.6, "", "1 k"),
        (1500, "", "1.5 k"),
        (398083484, "", "398 M"), (999_600_000, "B", "1 GB"), (1.2102e12, "", "1.21 T"), (546.567e12, "", "547 T"),
        (3e15, "", "3000 T"),
    ],
)  # fmt: skip
def test_counts(value: float | None, unit: str, text: str) -> None:
    assert scaled(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "unknown"), (2.918, "2.92 s"), (1234.5, "1234 s"), (0.03512, "35.1 ms"), (0.99960, "1 s"), (8e-6, "8 µs")],
)
def test_times(value: float | None, text: str) -> None:
    assert seconds(value) == text
