"""The rules of the rooms: who may import whom, and that nobody knows a learner or suite by name."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "harness": {"harness"},
    "models": {"models", "harness"},
    "datasets": {"datasets", "harness"},
    "baselines": {"baselines", "harness", "models"},
    "leaderboard": {"leaderboard", "harness"},
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """List what a file imports anywhere: inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_they_may(room: str) -> None:
    for path in sources(room):
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            parts = module.split(".")
            if parts[0] == "lite_bench":
                assert parts[1] in MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {module}"


def test_import_linter_agrees() -> None:
    main = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", main, "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def run_python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_leaderboard_never_loads_torch() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in sources("leaderboard")]
    modules = [".".join(("lite_bench", *path.parts)).removesuffix(".__init__") for path in paths]
    imports = "".join(f"import {module}\n" for module in modules)
    assert run_python(f"import sys\n{imports}print('torch' in sys.modules)") == "False"


def named_objects() -> list[tuple[str, Path]]:
    """List name and file of every learner and suite that we register."""
    found = []
    for group in ("lite_bench.learners", "lite_bench.suites"):
        for name, target in PROJECT["entry-points"][group].items():
            parts = target.partition(":")[0].split(".")[1:]
            file = ROOT.joinpath(*parts).with_suffix(".py")
            found.append((name, file if file.exists() else ROOT.joinpath(*parts)))
    return found


def text_constants(tree: ast.AST) -> set[str]:
    """List the strings of a program except its docstrings, which may give examples."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return {n.value for n in constants if isinstance(n.value, str) and id(n) not in docstrings}


# Where a name is data that a user could replace, or means something else.
ALLOWED: dict[str, set[str]] = {
    "harness/cli/quickstart.py": {"*"},  # the recipe of the demonstration
    "datasets/conversion/omniglot.py": {"omniglot"},  # the Meta-Dataset source, not our suite of that name
    "datasets/conversion/registry.py": {"omniglot"},
    "datasets/conversion/originals.py": {"folder"},  # a kind of place, beside archives
    "datasets/vtab/tasks.py": {"folder"},  # a key of tasks.toml
    "harness/cli/app.py": {"glyphs"},  # the default of --suite: the one suite that needs no data
}


@pytest.mark.parametrize(("name", "own"), named_objects(), ids=lambda value: Path(value).stem)
def test_nobody_knows_a_learner_or_suite_by_name(name: str, own: Path) -> None:
    for path in (path for each in MAY_IMPORT for path in sources(each)):
        place = path.relative_to(ROOT).as_posix()
        family = path.parent == own.parent and path.stem.partition("_")[0] == own.stem  # omniglot_sources.py
        home = own.parent if own.parent.name == name else own  # a suite with a package of its own
        if path == own or home in path.parents or family or ALLOWED.get(place, set()) & {"*", name}:
            continue
        known = name in text_constants(ast.parse(path.read_text(encoding="utf-8")))
        assert not known, f"{place} names {name!r}; load it through the registry instead"
