"""A plug-in from elsewhere: a real distribution, installed by the test, under the unchanged commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "plugin"
LITE_BENCH = Path(sys.executable).with_name("lite-bench")


def run(command: list[str | Path], site: Path, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command with ``site`` as one more folder of installed distributions."""
    environ = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example plug-in installed and, beside it, a plug-in whose module is missing."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    run([*pip, "--no-deps", "--no-build-isolation", "--target", target, source], target)
    broken = target / "lite_bench_broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: lite-bench-broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[lite_bench.learners]\nbroken = lite_bench_absent:Learner\n")
    return target


def lite_bench(site: Path, *arguments: str | Path) -> str:
    """Run the command line with the plug-ins installed; return its standard output."""
    return run([LITE_BENCH, *arguments], site).stdout


def test_plugin_is_listed_like_our_own(site: Path) -> None:
    rows = {row["name"]: row for row in json.loads(lite_bench(site, "list", "learners", "--json"))}
    assert rows["ridge"]["distribution"] == "lite-bench-ridge"
    assert rows["ridge"]["version"] == "0.1.0"
    assert "closed-form solvers" in rows["ridge"]["description"]
    assert rows["protonets"]["distribution"] == "lite-bench"


def test_broken_plugin_is_reported_and_breaks_nothing(site: Path) -> None:
    rows = {row["name"]: row for row in json.loads(lite_bench(site, "list", "plugins", "--json"))}
    assert rows["ridge"]["error"] is None
    assert rows["broken"]["distribution"] == "lite-bench-broken"
    assert "lite_bench_absent" in rows["broken"]["error"]
    assert "broken" in lite_bench(site, "list", "learners")
    lite_bench(site, "list", "suites")


def test_plugin_trains_evaluates_and_is_ranked(site: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    backbone = ["--backbone", "conv4", "--image-size", "28", "--no-pretrained"]
    steps = ["--tasks", "4", "--tasks-per-step", "2"]
    lite_bench(site, "train", "ridge", "--suite", "glyphs", *backbone, *steps, "--output-dir", runs)
    lite_bench(site, "eval", "--output-dir", runs, "--limit", "2")
    assert "ridge" in lite_bench(site, "leaderboard", runs)


def test_plugin_passes_the_public_checks(site: Path) -> None:
    imports = "from lite_bench.harness.checks import check_learner; from lite_bench_ridge import Ridge"
    run([sys.executable, "-c", f"{imports}; check_learner(Ridge)"], site)


def test_ridge_is_the_closed_form(site: Path) -> None:
    code = """
import torch
from lite_bench_ridge import ridge_weights
torch.manual_seed(0)
x, y = torch.randn(7, 5, dtype=torch.double), torch.randn(7, 3, dtype=torch.double)
for lam in (0.1, 1.0, 30.0):
    primal = torch.linalg.solve(x.T @ x + lam * torch.eye(5, dtype=torch.double), x.T @ y)
    torch.testing.assert_close(ridge_weights(x, y, torch.tensor(lam, dtype=torch.double)), primal)
"""
    run([sys.executable, "-c", code], site)


def test_ridge_checks_its_option(site: Path) -> None:
    backbone = ["--backbone", "conv4", "--image-size", "28", "--no-pretrained"]
    options = ["--suite", "glyphs", "--tasks", "1", "-P", "ridge_lambda=0"]
    done = run([LITE_BENCH, "train", "ridge", *backbone, *options], site, exit_code=2)
    assert "ridge_lambda is 0.0 and must be above 0" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
