"""Flags that take several values, with commas."""

from __future__ import annotations

from lite_bench.harness.errors import UsageError

PRECISIONS = ("fp32", "tf32", "bf16")


def split(text: str) -> list[str]:
    """Split at commas, each word once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def names_of(text: str) -> list[str]:
    """Split estimator names.

    Raises:
        UsageError: there is none, or one of them is not registered.
    """
    from lite_bench.harness.registry import ESTIMATORS

    names = split(text)
    if not names:
        raise UsageError("--gradient is empty; give for example --gradient lite,exact.")
    for name in names:
        ESTIMATORS.find(name)
    return names


def numbers_of(text: str, flag: str, least: int = 0) -> list[int]:
    """Split whole numbers, in ascending order.

    Raises:
        UsageError: there is none, or one of them is no whole number from ``least``.
    """
    words = split(text)
    if not words or not all(word.isdecimal() and int(word) >= least for word in words):
        raise UsageError(f"{flag} {text!r} is not usable: give whole numbers from {least} with commas.")
    return sorted(map(int, words))


def precisions_of(text: str) -> list[str]:
    """Split precisions.

    Raises:
        UsageError: there is none, or one of them is not known.
    """
    words = split(text)
    if not words or any(word not in PRECISIONS for word in words):
        raise UsageError(f"--precision {text!r} is not usable: give fp32, tf32, bf16 or several with commas.")
    return words
