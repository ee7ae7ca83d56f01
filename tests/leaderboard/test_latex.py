"""LaTeX: no text from a record becomes a command, and a real compiler takes it where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.harness.records import read_results
from lite_bench.leaderboard.latex import escape, latex
from lite_bench.leaderboard.tables import make_tables
from tests.leaderboard.samples import make_manifest, write_run

HOSTILE = '\\input{/etc/passwd} 100% $x^2$ a_b & #1 ~ {" <b> \\\\ \u202e'
NAMES = "backslash|asciitilde|asciicircum|asciigrave|less|greater|quotedbl|mu"
COMMANDS = rf"\\text({NAMES})\{{\}}|\\[{{}}$&#%_]|\{{[\[*]\}}|(-\{{\}})+(?=-)"


@given(st.text())
def test_every_special_character_is_spelled_out(text: str) -> None:
    left = re.sub(COMMANDS, "", escape(text))
    for known in ("$\\pm$", "$^\\dagger$", "$\\surd$", "$\\geq$", "$\\leq$", "$\\times$", "$-$"):
        left = left.replace(known, "")
    assert not set(left) & set('\\{}$&#%_~^<>"')


def test_no_text_is_taken_for_an_argument_or_a_ligature() -> None:
    assert escape("[2] x*") == "{[}2] x{*}"
    assert escape("--a ---b `c`") == "-{}-a -{}-{}-b \\textasciigrave{}c\\textasciigrave{}"


def test_no_line_begins_with_what_a_line_break_takes_for_its_argument(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "{[}2] " in text
    assert not re.search(r"(\\\\|rule)\s*[\[*]", text)


def page(tmp_path: Path) -> str:
    manifest = make_manifest(label=HOSTILE)
    run = write_run(tmp_path / "run", manifest, {"Latin": [0.5] * 4, "Old Italic": [0.25] * 4})
    other = write_run(tmp_path / "other", make_manifest(learner="other"), {"Latin": [0.5, 0.25, 0.5, 0.5]})
    return latex(make_tables([*read_results(run), *read_results(other)]))


def test_every_row_of_a_grid_has_as_many_cells_as_its_heading(tmp_path: Path) -> None:
    text = page(tmp_path)
    for grid in re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        lines = [line for line in grid[1].splitlines() if line.endswith(r" \\")]
        assert len(lines) == 3
        assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(grid[0])}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here; install TeX Live to compile the table")
def test_a_compiler_takes_it(tmp_path: Path) -> None:
    packages = "\\usepackage[T1]{fontenc}\\usepackage{booktabs,graphicx,xcolor,textcomp}"
    head = f"\\documentclass{{article}}{packages}\\begin{{document}}\n"
    (tmp_path / "table.tex").write_text(f"{head}{page(tmp_path)}\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
