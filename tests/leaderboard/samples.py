"""Made-up evaluations on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lite_bench.harness.core import Record, Task
from lite_bench.harness.records import (
    Manifest,
    append_record,
    records_path,
    results_folder,
    write_manifest,
)


def make_manifest(**changes: Any) -> Manifest:
    """A manifest of two sources with four tasks each."""
    values: dict[str, Any] = {
        "suite": "letters@1",
        "split": "test",
        "seed": 0,
        "sources": {"Latin": 4, "Old Italic": 4},
        "groups": {"all": ["Latin", "Old Italic"]},
        "learner": "protonets",
        "backbone": "conv4",
        "image_size": 84,
        "checkpoint": "untrained",
        "data": "0123456789abcdef",
    }
    return Manifest(**(values | changes))


def make_record(manifest: Manifest, source: str, index: int, accuracy: float, **changes: Any) -> Record:
    """A record that fits ``manifest``."""
    values: dict[str, Any] = {
        "task": str(Task(manifest.suite, source, manifest.split, index, manifest.seed)),
        "suite": manifest.suite,
        "source": source,
        "learner": manifest.learner,
        "backbone": manifest.backbone,
        "image_size": manifest.image_size,
        "accuracy": accuracy,
        "way": 5,
        "n_support": 25,
        "n_query": 50,
        "adapt_seconds": 0.25,
        "classify_seconds": 0.5,
        "checkpoint": manifest.checkpoint,
        "data": manifest.data,
        "version": "0.1.0",
    }
    return Record(**(values | changes))


def write_run(
    run: Path, manifest: Manifest, accuracies: Mapping[str, Sequence[float]], synthetic: bool = False
) -> Path:
    """Write an evaluation into run folder ``run``: one record per accuracy."""
    write_manifest(results_folder(run, manifest.suite), manifest)
    for source, values in accuracies.items():
        path = records_path(run, manifest.suite, source)
        for index, accuracy in enumerate(values):
            append_record(path, make_record(manifest, source, index, accuracy, synthetic=synthetic))
    return run
