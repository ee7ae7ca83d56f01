"""Where what was found in data is kept for the next time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Name a cache folder: ``$LITE_BENCH_HOME/<name>`` or ``~/.cache/lite-bench/<name>``."""
    if home := os.environ.get("LITE_BENCH_HOME"):
        return Path(home).expanduser() / name
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lite-bench" / name
