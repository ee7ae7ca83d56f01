"""``lite-bench doctor``: a broken installation is explained, missing data is a normal state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from lite_bench.harness.cli.doctor import VARIABLES, doctor, import_problems
from lite_bench.harness.registry import SUITES


def diagnosis(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_sound_installation_has_no_problems() -> None:
    found = json.loads(diagnosis("--json"))
    assert found["problems"] == []
    assert found["imports"] == {"torch": None, "torchvision": None, "timm": None}
    assert [row["suite"] for row in found["data"]] == SUITES.names()
    assert all(row["error"] is None for row in found["data"])
    assert any(row["embedded"] for row in found["data"])
    assert set(found["variables"]) == set(VARIABLES)
    assert set(found["weights"]) == {"torch", "huggingface"}


def test_plain_output_is_one_fact_per_line() -> None:
    header, *lines = diagnosis().splitlines()
    facts = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    assert header == "what\tstate\tdetail"
    assert facts["timm"]
    assert facts["RECORDS"] == "not set"
    assert {f"data of {name}" for name in SUITES.names()} <= set(facts)


def test_builds_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    """What a CPU build of torch beside a CUDA build of torchvision does, and with it `import timm`."""
    (tmp_path / "torchvision").mkdir()
    failure = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / "torchvision" / "__init__.py").write_text(failure)
    code = "import typer; from lite_bench.harness.cli.doctor import doctor; typer.run(doctor)"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "operator torchvision::nms does not exist" in done.stderr
    assert "pip install --force-reinstall torch torchvision" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("what\tstate\tdetail\n")


def test_absent_library_is_named_with_its_remedy() -> None:
    error = "ModuleNotFoundError: No module named 'timm'"
    (problem,) = import_problems({"torch": None, "torchvision": None, "timm": error})
    assert error in problem
    assert "pip install timm" in problem
