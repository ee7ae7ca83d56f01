"""What README and docs tell people to type exists, and the quick part of it is run as printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lite_bench.harness.cli.app import build_app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = {"list", "info", "doctor"}


def printed_lines(path: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip()]


COMMANDS = [(page.name, line) for page in PAGES for line in printed_lines(page) if line.startswith("lite-bench ")]


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 8


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_printed_command_and_flag_exists(page: str, line: str) -> None:
    command: Any = typer.main.get_command(build_app())
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):  # a group, such as `lite-bench data`
        name, *words = words
        assert name in command.commands, f"{page}: {line}"
        command = command.commands[name]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d.*", word):
            assert word.partition("=")[0] in known, f"{page}: {line}"


@pytest.mark.parametrize("line", sorted({line for _, line in COMMANDS if shlex.split(line)[1] in QUICK}))
def test_quick_commands_run_as_printed(line: str) -> None:
    result = CliRunner().invoke(build_app(), shlex.split(line)[1:])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_links_and_scripts_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in printed_lines(page):
        if line.startswith("make "):
            assert re.search(rf"^{line.split()[1]}:", makefile, flags=re.MULTILINE), line
        for script in re.findall(r"benchmarks/\w+\.py", line):
            assert (ROOT / script).is_file(), line
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
