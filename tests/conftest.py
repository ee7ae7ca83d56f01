"""What every test runs under: offline, few threads, shapes checked, nothing found by accident.

The environment is set before torch, Hugging Face or matplotlib are imported, and subprocesses inherit it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

from lite_bench.harness import core

ROOT = Path(__file__).resolve().parents[1]
DATA_VARIABLES = (
    "RECORDS",
    "META_DATASET_ROOT",
    "TFDS_DATA_DIR",
    "SUN397_ROOT",
    "ORBIT_BENCHMARK_ROOT",
    "OMNIGLOT_ROOT",
)
TEST_DATA = "LITE_BENCH_TEST_DATA"

# `python -m pytest` puts the working directory first, where our `datasets` hides Hugging Face's, which timm
# imports. Python in a subprocess would do the same.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
os.environ["PYTHONSAFEPATH"] = "1"

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# One thread for each of several processes (`make test`), whatever the one that started them has set; two for one alone.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ.setdefault("OMP_NUM_THREADS", "2")


def _check_shapes_of(*packages: str) -> None:
    """Check annotated shapes and types at run time in modules of ``packages`` that are imported from now on.

    Protocols are for the type checker alone: a test may pass any callable as ``encode``.
    """
    protocols = {value for value in vars(core).values() if getattr(value, "_is_protocol", False)}
    overrides: Any = FrozenDict(dict.fromkeys(protocols, object))
    checker: Any = ModuleType("lite_bench_shape_checker")  # the hook takes the name of an importable function
    checker.check = beartype(conf=BeartypeConf(hint_overrides=overrides, is_pep484_tower=True))
    sys.modules[checker.__name__] = checker
    install_import_hook(list(packages), f"{checker.__name__}.check")


_check_shapes_of("lite_bench.models")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, and say why."""
    if item.get_closest_marker("data") and not os.environ.get(TEST_DATA):
        pytest.skip(f"{TEST_DATA} does not name a folder with omniglot/ and grocery_store/")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real images, holding ``omniglot/`` and ``grocery_store/``; mark the test ``data``."""
    folder = os.environ.get(TEST_DATA)
    if not folder:
        pytest.skip(f"{TEST_DATA} does not name a folder with omniglot/ and grocery_store/")
    root = Path(folder).expanduser().resolve()
    missing = [name for name in ("omniglot", "grocery_store") if not (root / name).is_dir()]
    if missing:
        pytest.fail(f"{TEST_DATA}={folder} holds no {' and no '.join(missing)}")
    return root


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in an empty folder and without the user's own settings and data."""
    for name in list(os.environ):
        if (name.startswith("LITE_BENCH_") and name != TEST_DATA) or name in DATA_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
