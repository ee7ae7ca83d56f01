"""Two learners compared: which rows a name may mean, and what is said of each column."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from lite_bench.harness.errors import IncompatibleError, UnknownNameError
from lite_bench.leaderboard.evaluations import find_results
from lite_bench.leaderboard.latex import latex_pairs
from lite_bench.leaderboard.markdown import markdown_pairs
from lite_bench.leaderboard.pairs import find_pairs, p_text, pair_caption, pair_rows, pairs_csv, pairs_json
from lite_bench.leaderboard.tables import Table, make_tables
from lite_bench.leaderboard.terminal import terminal_pairs
from lite_bench.leaderboard.text import RECOGNITION
from tests.leaderboard.samples import make_manifest, write_run

OURS = {"Latin": [0.5, 0.7, 0.75, 0.7], "Old Italic": [0.25, 0.5, 0.5, 0.5]}
THEIRS = {"Latin": [0.6, 0.6, 0.6, 0.625], "Old Italic": [0.5, 0.5, 0.25, 0.125]}


@pytest.fixture
def tables(tmp_path: Path) -> list[Table]:
    write_run(tmp_path / "a", make_manifest(learner="ours"), OURS)
    write_run(tmp_path / "b", make_manifest(learner="theirs", label="their label"), THEIRS)
    write_run(tmp_path / "c", make_manifest(learner="partial"), {"Latin": [0.5] * 4})
    write_run(tmp_path / "d", make_manifest(learner="elsewhere", suite="letters@2"), {})
    for name in ("e", "f"):
        write_run(tmp_path / name, make_manifest(learner="twin", checkpoint=name), OURS)
    return make_tables(find_results([tmp_path]))


def test_each_column_is_scipys_paired_t_test(tables: list[Table]) -> None:
    (pair,) = find_pairs(tables, "ours", "their label")
    for source, values in OURS.items():
        found, wanted = pair.columns[source], ttest_rel(values, THEIRS[source])
        assert found is not None
        assert found.p == pytest.approx(wanted.pvalue, abs=1e-12)
        assert found.interval == pytest.approx(wanted.confidence_interval(), abs=1e-12)


def test_turned_round_the_sign_is_turned(tables: list[Table]) -> None:
    (one,), (other,) = find_pairs(tables, "ours", "theirs"), find_pairs(tables, "theirs", "ours")
    for column, found in one.columns.items():
        back = other.columns[column]
        assert found is not None
        assert back is not None
        assert (found.difference, found.p) == (-back.difference, back.p)


def test_a_column_that_one_lacks_is_named(tables: list[Table]) -> None:
    (pair,) = find_pairs(tables, "ours", "partial")
    assert [line[0] for line in pair_rows(pair)] == ["Latin"]
    assert pair_caption(pair).endswith("One of the two has no score in Old Italic, all.")


def test_a_caption_says_that_fewer_frames_to_recognition_are_better(tables: list[Table]) -> None:
    (pair,) = find_pairs(tables, "ours", "theirs")
    assert RECOGNITION not in pair_caption(pair)
    assert RECOGNITION in pair_caption(replace(pair, columns={"clean: frames to recognition": None}))


def test_names_that_fit_no_row_or_several_are_refused(tables: list[Table]) -> None:
    with pytest.raises(UnknownNameError, match=r"row of a learner called 'their'.*Did you mean their label"):
        find_pairs(tables, "ours", "their")
    with pytest.raises(IncompatibleError, match=r"'twin' fits 2 rows of letters@1; .*'twin \(e\)', 'twin \(f\)'"):
        find_pairs(tables, "ours", "twin")
    with pytest.raises(IncompatibleError, match="are the same row"):
        find_pairs(tables, "theirs", "their label")
    with pytest.raises(IncompatibleError, match="never stand in one table"):
        find_pairs(tables, "ours", "elsewhere")


def test_every_form_says_the_same(tables: list[Table]) -> None:
    pairs = find_pairs(tables, "ours", "theirs")
    (pair,) = pairs
    (content,) = json.loads(pairs_json(pairs))["comparisons"]
    lines = {line["column"]: line for line in csv.DictReader(io.StringIO(pairs_csv(pairs)))}
    for column, found in pair.columns.items():
        assert found is not None
        assert found.interval is not None
        assert content["columns"][column]["p"] == found.p == float(lines[column]["p"])
        assert (content["columns"][column]["low"], float(lines[column]["high"])) == found.interval
    digest = pair.table.provenance.digest
    assert (content["split"], content["synthetic"]) == (lines["Latin"]["split"], False) == ("test", False)
    assert (content["provenance"]["digest"], lines["Latin"]["task_digest"]) == (digest, digest)
    for text in (markdown_pairs(pairs), latex_pairs(pairs), terminal_pairs(pairs)):
        assert "letters@1, test split, task seed 0" in text
    assert "| Latin      |      +5.62 | −11.68 to +22.93 | 0.38 |     4 | paired t over 4 tasks" in markdown_pairs(
        pairs
    )
    assert "Latin & +5.62 & $-$11.68 to +22.93 & 0.38 & 4 & paired t over 4 tasks \\\\" in latex_pairs(pairs)
    drawn = next(line for line in terminal_pairs(pairs).splitlines() if line.strip().startswith("Latin"))
    assert drawn.split() == [
        "Latin",
        "+5.62",
        "−11.68",
        "to",
        "+22.93",
        "0.38",
        "4",
        "paired",
        "t",
        "over",
        "4",
        "tasks",
    ]


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.0, "< 0.0001"), (0.00123, "0.0012"), (0.5, "0.5"), (1.0, "1")])
def test_p_is_written_with_two_digits(p: float | None, text: str) -> None:
    assert p_text(p) == text
