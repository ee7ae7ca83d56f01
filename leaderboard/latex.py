"""Tables as LaTeX for papers: a float per grid, which needs the packages booktabs, graphicx, xcolor and textcomp."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lite_bench.leaderboard.labels import visible
from lite_bench.leaderboard.layout import Block, blocks
from lite_bench.leaderboard.pairs import HEAD as PAIR_HEAD
from lite_bench.leaderboard.pairs import Pair, pair_caption, pair_rows, pair_title
from lite_bench.leaderboard.published import PublishedRow
from lite_bench.leaderboard.rows import Cell, Row
from lite_bench.leaderboard.tables import Table
from lite_bench.leaderboard.text import (
    COMMAND,
    COSTS,
    DASH,
    SETUP,
    TIED,
    Notes,
    caption,
    cost_texts,
    footer,
    published_cost_texts,
    published_notes,
    published_setup_texts,
    published_text,
    rank_text,
    score_text,
    setup_texts,
    title,
)

APOSTROPHE, STRAIGHT = "'", "\\textquotesingle{}"
NEEDS = "% Needs \\usepackage{booktabs,graphicx,xcolor,textcomp} and, with pdflatex, \\usepackage[T1]{fontenc}."
SPECIAL = {
    "\\": "\\textbackslash{}",
    "{": "\\{",
    "}": "\\}",
    "$": "\\$",
    "&": "\\&",
    "#": "\\#",
    "%": "\\%",
    "_": "\\_",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    '"': "\\textquotedbl{}",
    "`": "\\textasciigrave{}",
    "[": "{[}",  # else a line that begins with it is taken for the argument of the line break before
    "*": "{*}",
    "±": "$\\pm$",
    "–": "--",
    "µ": "\\textmu{}",
    "†": "$^\\dagger$",
    "√": "$\\surd$",
    "≥": "$\\geq$",
    "≤": "$\\leq$",
    "×": "$\\times$",
    "−": "$-$",
}


def latex(tables: Sequence[Table]) -> str:
    """Render tables as LaTeX; no text from a record can become a command."""
    return "\n\n".join([NEEDS, *(_table(table) for table in tables)]) + "\n"


def latex_pairs(pairs: Sequence[Pair]) -> str:
    """Render comparisons of two learners as LaTeX."""
    parts = [NEEDS]
    for pair in pairs:
        grid = _tabular(PAIR_HEAD, [[escape(text) for text in line] for line in pair_rows(pair)], [], left=0)
        heading = f"\\caption{{\\textbf{{{escape(pair_title(pair))}.}} {escape(pair_caption(pair))}}}"
        below = " \\\\\n".join(_footer_line(name, text) for name, text in footer(pair.table))
        parts.append(_float("table", heading, grid, "\n\\medskip\\raggedright\\scriptsize", below))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Spell a text so that LaTeX prints it as it is."""
    plain = " ".join(visible(text).split())
    spelled = "".join(SPECIAL.get(letter, letter) for letter in re.sub("-(?=-)", "-\0", plain))
    return spelled.replace("\0", "{}")  # else two hyphens in a row, as of an option, are printed as one dash


def _table(table: Table) -> str:
    """Render one table: a float for each of its grids, then the footnotes and what it rests on."""
    notes = Notes()
    grids = [(block.title, _scores(table, block, notes)) for block in blocks(table)]
    grids.append(("Setup", _setup(table, notes)))
    grids += [("Cost of a task", _costs(table, notes))] if table.with_costs else []
    floats = []
    for number, (about, grid) in enumerate(grids):
        heading = ": ".join(filter(None, [title(table), about]))
        reading = "" if number else f" {escape(' '.join(caption(table)))}"
        floats.append(_float("table*", f"\\caption{{\\textbf{{{escape(heading)}.}}{reading}}}", grid))
    below = [escape(f"[{number}] {text}") for number, text in enumerate(notes.texts, start=1)]
    below += [_footer_line(name, text) for name, text in footer(table)]
    return "\n\n".join([*floats, "{\\raggedright\\scriptsize\n" + " \\\\\n".join(below) + "\\par}"])


def _float(kind: str, heading: str, grid: str, *below: str) -> str:
    """Put a grid into a float of its own, no wider than the text."""
    fitted = f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{grid}}}"
    start = "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}"
    return "\n".join([f"\\begin{{{kind}}}", start, heading, fitted, *below, f"\\end{{{kind}}}"])


def _footer_line(name: str, text: str) -> str:
    """Render a line of the footer; quotes of a command stay straight, so that it can be copied."""
    plain = escape(text)
    return f"{name}: {plain.replace(APOSTROPHE, STRAIGHT) if name == COMMAND else plain}"


def _scores(table: Table, block: Block, notes: Notes) -> str:
    lines = [[escape(rank_text(row.rank)), _label(row, notes), *_cells(row, block, table, notes)] for row in table.rows]
    others = []
    for published in table.published:
        figures = [published.figures.get(column) for column in block.columns]
        if any(figures):
            marks = [f" {notes.mark(each.note)}".rstrip() if each else "" for each in figures]
            texts = [published_text(each) + mark for each, mark in zip(figures, marks, strict=True)]
            others.append(["", _gray(published.name), *map(_gray, texts)])
    return _tabular(["Rank", "Learner", *block.columns], lines, others, left=1)


def _setup(table: Table, notes: Notes) -> str:
    lines = [[_label(row, notes), *map(escape, setup_texts(row))] for row in table.rows]
    others = [[_published_label(row, notes), *map(_gray, published_setup_texts(row))] for row in table.published]
    return _tabular(["Learner", *SETUP], lines, others, left=0)


def _costs(table: Table, notes: Notes) -> str:
    lines = [[_label(row, notes), *map(escape, cost_texts(row.costs))] for row in table.rows]
    rows = [(row, published_cost_texts(row)) for row in table.published]
    others = [[_published_label(row, notes), *map(_gray, texts)] for row, texts in rows if set(texts) != {DASH}]
    return _tabular(["Learner", *COSTS], lines, others, left=0)


def _tabular(head: Sequence[str], lines: Sequence[list[str]], published: Sequence[list[str]], left: int) -> str:
    """Lay out a grid; ``left`` is the column that is aligned to the left."""
    align = "".join("l" if number == left else "r" for number in range(len(head)))
    rows = [" & ".join(map(escape, head)) + " \\\\", "\\midrule", *(" & ".join(line) + " \\\\" for line in lines)]
    if published:
        rows += ["\\midrule", *(" & ".join(line) + " \\\\" for line in published)]
    return "\n".join([f"\\begin{{tabular}}{{@{{}}{align}@{{}}}}", "\\toprule", *rows, "\\bottomrule", "\\end{tabular}"])


def _cells(row: Row, block: Block, table: Table, notes: Notes) -> list[str]:
    return [_score(row.cells[column], table, notes) for column in block.columns]


def _score(cell: Cell, table: Table, notes: Notes) -> str:
    text = escape(score_text(cell, table.interval))
    if cell.estimate is None:
        return f"{text} {notes.mark(cell.missing)}".rstrip()
    if len(table.rows) == 1:
        return text
    return f"\\textbf{{{text}}}" if cell.best else text + escape(TIED) * cell.tied


def _label(row: Row, notes: Notes) -> str:
    return " ".join(filter(None, [escape(row.label), escape("".join(notes.mark(text) for text in row.notes))]))


def _published_label(row: PublishedRow, notes: Notes) -> str:
    marks = escape("".join(notes.mark(text) for text in published_notes(row)))
    return f"{_gray(row.name)} {marks}".rstrip()


def _gray(text: str) -> str:
    return escape(text) if text in {"", DASH} else f"\\textcolor{{gray}}{{\\textit{{{escape(text)}}}}}"
