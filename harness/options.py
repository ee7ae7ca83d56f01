"""``-P key=value`` and ``-S key=value``: text checked against the keyword-only parameters of a callable."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lite_bench.harness.errors import UnknownNameError, UsageError


def option_parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """List the keyword-only parameters of ``factory``: the options a user may set."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _annotation(factory: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Evaluate the annotation of one parameter; others may name what is imported for type checkers only."""
    if parameter.annotation is inspect.Parameter.empty:
        return Any
    target = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    return typing.get_type_hints(alone, getattr(target, "__globals__", {}), include_extras=True)[parameter.name]


def split_pairs(pairs: list[str], flag: str) -> dict[str, str]:
    """Split ``key=value`` texts.

    Raises:
        UsageError: one of them has no ``=`` or a key is given twice.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise UsageError(f"{flag} {pair!r} is not of the form key=value; write for example {flag} steps=50.")
        if key in options:
            raise UsageError(f"{flag} {key} is given twice; give it once.")
        options[key] = value
    return options


def check_options(factory: Callable[..., Any], options: Mapping[str, Any], owner: str, flag: str) -> dict[str, Any]:
    """Convert ``options`` to the annotated types of ``factory``'s keyword-only parameters.

    Args:
        factory: the class or function that will receive them.
        options: values, as text or already typed.
        owner: who has these options, for messages ("learner 'protonets'").
        flag: the command-line flag they came with.

    Raises:
        UnknownNameError: a key that ``factory`` does not have.
        UsageError: a value of the wrong type or outside the allowed ones.
    """
    parameters = option_parameters(factory)
    typed: dict[str, Any] = {}
    for key, value in options.items():
        if key not in parameters:
            raise UnknownNameError(f"option {flag} of {owner} called", key, parameters)
        try:
            typed[key] = TypeAdapter(_annotation(factory, parameters[key])).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UsageError(f"{flag} {key}={value} of {owner} is not usable: {reason}.") from error
    return typed
