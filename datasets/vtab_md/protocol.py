"""The Meta-Dataset side of VTAB+MD as data: ``protocol.toml``."""

from __future__ import annotations

import functools
import tomllib
from importlib.resources import files
from typing import Any


@functools.cache
def protocol() -> dict[str, Any]:
    """Read the sources and numbers of tasks of both versions; do not write to what is given."""
    tables: dict[str, Any] = tomllib.loads(files(__package__).joinpath("protocol.toml").read_text(encoding="utf-8"))
    return tables
