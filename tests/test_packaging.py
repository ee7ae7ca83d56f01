"""What a user installs: the wheel made from the source distribution, and nothing that is only here."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("harness", "models", "datasets", "baselines", "leaderboard")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*")


def run(*command: str | Path, **environment: str) -> str:
    """Run a command with extra environment variables; return its standard output."""
    environ = {**os.environ, **environment}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of(room: str) -> list[Path]:
    """List the files of a room that belong into the wheel."""
    return [path for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@pytest.mark.parametrize("room", ROOMS)
def test_every_folder_with_modules_is_a_listed_package(room: str) -> None:
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    for folder in {path.parent for path in files_of(room)}:
        name = ".".join(("lite_bench", *folder.relative_to(ROOT).parts))
        assert name in listed, f"add {name} to packages in pyproject.toml, or the wheel lacks it"
        assert (folder / "__init__.py").exists(), f"{folder} needs an __init__.py"


@pytest.mark.parametrize("room", ROOMS)
def test_every_data_file_is_package_data(room: str) -> None:
    patterns = [*PYPROJECT["tool"]["setuptools"]["package-data"]["*"], "*.py"]
    for path in files_of(room):
        assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns), (
            f"add a pattern for {path.relative_to(ROOT)} to package-data in pyproject.toml"
        )


def test_recipes_are_installed(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    recipes = {f"lite_bench/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.toml")}
    assert len(recipes) > 3
    assert recipes <= names


def test_every_listed_package_exists() -> None:
    for name in PYPROJECT["tool"]["setuptools"]["packages"]:
        assert ROOT.joinpath(*name.split(".")[1:], "__init__.py").exists()


def test_every_entry_point_names_a_file() -> None:
    for group, entries in PYPROJECT["project"]["entry-points"].items():
        for name, target in entries.items():
            path = ROOT.joinpath(*target.partition(":")[0].split(".")[1:])
            assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), f"{group} {name}"


@pytest.mark.parametrize("room", ROOMS)
def test_type_checkers_see_the_rooms_through_links(room: str) -> None:
    link = ROOT / ".typings" / "lite_bench" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..", "..", room)
    assert link.resolve() == ROOT / room


def test_version_comes_from_the_metadata() -> None:
    assert importlib.metadata.version("lite-bench") == PYPROJECT["project"]["version"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel made from it; nothing is downloaded."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for room in (*ROOMS, "recipes"):
        shutil.copytree(ROOT / room, copy / room, ignore=LEFT_OUT)
    run(sys.executable, "-m", "build", "--no-isolation", copy)
    return copy / "dist"


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index")
    run(*pip, "--no-deps", "--target", target, next(built.glob("*.whl")))
    return target


def test_wheel_holds_every_file_and_one_top_level_name(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    dist_info = f"lite_bench-{PYPROJECT['project']['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"lite_bench", dist_info}
    assert f"{dist_info}/entry_points.txt" in names
    for room in ROOMS:
        assert f"lite_bench/{room}/py.typed" in names
        for path in files_of(room):
            assert f"lite_bench/{path.relative_to(ROOT).as_posix()}" in names


def test_source_distribution_holds_every_file(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    for room in ROOMS:
        assert {path.relative_to(ROOT).as_posix() for path in files_of(room)} <= names


def test_installed_wheel_is_imported_and_complete(installed: Path) -> None:
    code = "import lite_bench.harness.core as core; print(core.__file__)"
    where = run(sys.executable, "-s", "-P", "-c", code, PYTHONPATH=str(installed)).strip()
    assert Path(where).resolve().is_relative_to(installed.resolve())


def test_installed_command_line_starts(installed: Path) -> None:
    command = installed / "bin" / "lite-bench"
    version = run(command, "--version", PYTHONPATH=str(installed))
    assert PYPROJECT["project"]["version"] in version
    assert "train" in run(command, "--help", PYTHONPATH=str(installed))


def required_by(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """List the distributions that installing ``name`` brings along, as the metadata of what is installed says."""
    found: set[str] = set()
    ahead = [(name, extras)]
    while ahead:
        current, chosen = ahead.pop()
        if current in found:
            continue
        found.add(current)
        try:
            requirements = importlib.metadata.requires(current) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform or Python
            continue
        for requirement in map(Requirement, requirements):
            wanted = [{"extra": extra} for extra in ("", *chosen)]
            if requirement.marker is None or any(requirement.marker.evaluate(each) for each in wanted):
                ahead.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def test_nothing_that_is_installed_needs_tensorflow() -> None:
    brought = required_by("lite-bench", frozenset({"dev"}))
    assert {"torch", "tensorflow-datasets", "pyarrow", "pytest"} <= brought
    assert not {name for name in brought if name in {"tensorflow", "tensorflow-cpu", "tf-nightly", "tensorflow-gpu"}}
    assert "tensorflow" in required_by("lite-bench", frozenset({"tfds-prepare"}))
