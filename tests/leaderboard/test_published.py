"""Published rows: each figure is the published one, says where it stands, and stands only where it belongs."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lite_bench.datasets.omniglot import Omniglot, evaluation_rules
from lite_bench.datasets.orbit import table1
from lite_bench.datasets.orbit.protocol import rules
from lite_bench.datasets.orbit.videos import KINDS
from lite_bench.datasets.vtab_md.suite import VtabMd
from lite_bench.harness.errors import UnknownNameError
from lite_bench.harness.records import read_results
from lite_bench.harness.registry import LEARNERS
from lite_bench.leaderboard.published import PublishedRow, published_rows, published_table
from lite_bench.leaderboard.rows import metric_column
from lite_bench.leaderboard.tables import make_tables
from tests.leaderboard.samples import make_manifest, write_run

SUITES = ("orbit@2021", "orbit@2022", "vtab_md@lite", "vtab_md@official", "omniglot@1")
KINDS_OF_SOURCES = (
    "primary",
    "authors_readme",
    "leaderboard",
    "reproduction",
    "secondary_transcription",
    "aggregator",
)
VTAB = {
    "CIFAR-100": "cifar100",
    "Caltech101": "caltech101",
    "Camelyon": "patch_camelyon",
    "Clevr-Count": "clevr_count",
    "Clevr-Dist": "clevr_distance",
    "DMLab": "dmlab",
    "EuroSAT": "eurosat",
    "Flowers102": "oxford_flowers102",
    "KITTI-Dist": "kitti",
    "Pets": "oxford_iiit_pet",
    "Resisc45": "resisc45",
    "Retinopathy": "diabetic_retinopathy_detection",
    "SVHN": "svhn_cropped",
    "Sun397": "sun397",
    "dSpr-Loc": "dsprites_location",
    "dSpr-Orient": "dsprites_orientation",
    "sNORB-Azim": "smallnorb_azimuth",
    "sNORB-Elev": "smallnorb_elevation",
}
COLLECTED = {
    "orbit_table1": (
        "orbit_table1",
        {
            "clean_frame_acc": "clean",
            "clean_video_acc": "clean: video accuracy",
            "clutter_frame_acc": "clutter",
            "clutter_video_acc": "clutter: video accuracy",
        },
    ),
    "orbit_2022": ("orbit_2023_protocol", {"clutter_frame_acc": "clutter"}),
    "vtab_md_table2": (
        "vtabmd_table2_H",
        {
            "MD-v2": "MD-v2",
            "VTAB (all)": "VTAB",
            "VTAB (natural)": "natural",
            "VTAB (specialized)": "specialized",
            "VTAB (structured)": "structured",
        },
    ),
    "vtab_1k": ("vtab1k_representations", VTAB),
    "bit_vtab_1k": ("bit_vtab1k_reruns", {"specialized": "specialized", "structured": "structured"}),
    "omniglot": (
        "omniglot_classic",
        {f"{way}-way {shot}-shot": f"{way}-way-{shot}-shot" for way in (5, 20) for shot in (1, 5)},
    ),
}
"""Table here -> table in the collection, and column there -> column here."""
LEFT_OUT = "ProtoNets (earlier preprint figures)"
NAMES = {
    "FineTuner": "finetuner",
    "first-order MAML": "fomaml",
    "ProtoNets": "protonets",
    "ProtoNets (cosine)": "protonets",
    "CNAPs": "cnaps",
    "Simple CNAPs": "simple_cnaps",
    "SimpleCNAPs": "simple_cnaps",
    "Reptile": "reptile",
    "BiT": "bit",
}
COLLECTION = Path(__file__).resolve().parents[3] / "shared" / "protocol" / "published_results.json"
needs_collection = pytest.mark.skipif(
    not COLLECTION.exists(),
    reason="the collection of published results that the figures are from is not beside the clone",
)
CONTENT: dict[str, Any] = json.loads(
    files("lite_bench.leaderboard").joinpath("published.json").read_text(encoding="utf-8")
)


def all_rows() -> Iterator[tuple[str, PublishedRow]]:
    for suite in SUITES:
        yield from ((suite, row) for row in published_rows(suite))


def columns_of(suite: str) -> set[str]:
    """The columns that a table of ``suite`` has, from the suite itself."""
    name, version = suite.split("@")
    if name == "orbit":
        first, *others = rules(version, "lite").metrics  # type: ignore[arg-type]  # the version is a literal there
        assert first == "frame accuracy", "a source's own column is its first metric"
        return {*KINDS, *(metric_column(source, metric) for source in KINDS for metric in others)}
    if name == "omniglot":
        return set(evaluation_rules(None, None, None))
    suite_itself = VtabMd(None, None, version=version)  # type: ignore[arg-type]  # the version is a literal there
    return {*suite_itself.groups, *suite_itself.tasks("test")}


def collected(name: str) -> dict[str, Any]:
    """A table of the collection."""
    content = json.loads(COLLECTION.read_text(encoding="utf-8"))
    (table,) = (each for each in content["tables"] if each["id"] == name)
    return {**table, "documents": content["sources"]}


# ---------------------------------------------------------------- the file


def test_every_figure_is_an_accuracy_and_says_where_it_stands() -> None:
    for suite, row in all_rows():
        assert row.figures, row
        for column, figure in row.figures.items():
            where = (suite, row.system, column)
            assert 0 < figure.value < 1, where
            assert figure.half_width is None or 0 < figure.half_width < 0.1, where
            assert figure.source.citation, where
            assert figure.source.locator, where
            assert figure.source.kind in KINDS_OF_SOURCES, where
            assert figure.half_width is None or row.interval, where


def test_every_learner_and_every_column_exists() -> None:
    known = {suite: columns_of(suite) for suite in SUITES}
    for suite, row in all_rows():
        assert row.learner in {"", *LEARNERS.names()}
        assert row.figures.keys() <= known[suite], (suite, row.system)


def test_no_system_stands_twice_in_a_table() -> None:
    for suite in SUITES:
        names = [(row.system, row.backbone, row.image_size, row.gradient, row.h) for row in published_rows(suite)]
        assert len(names) == len(set(names))


def test_nothing_in_the_file_is_unused_and_all_sentences_end() -> None:
    rows = [row for table in CONTENT["tables"].values() for row in table["rows"]]
    figures = [each for row in rows for each in row["figures"] if isinstance(each, dict)]
    levels = [*CONTENT["tables"].values(), *rows, *figures]
    assert {level["source"] for level in levels if "source" in level} == set(CONTENT["sources"])
    for table in CONTENT["tables"].values():
        assert {name for row in table["rows"] for name in row.get("remarks", ())} == set(table.get("remarks", ()))
    for _, row in all_rows():
        notes = [figure.note for figure in row.figures.values() if figure.note]
        assert all(text.endswith(".") for text in (*row.differences, *notes)), row
        assert not any(figure.source.citation.endswith(".") for figure in row.figures.values())
        assert len(row.differences) == len(set(row.differences))


def test_a_figure_can_have_a_source_of_its_own_and_a_row_an_original() -> None:
    lost = published_table("orbit_table1")[-1].figures
    assert (lost["clean"].source.kind, lost["clean"].half_width) == ("aggregator", None)
    assert "lost" in lost["clean"].note
    assert "Table 1" not in lost["clean"].source.locator
    assert (lost["clutter"].source.kind, lost["clutter"].source.locator) == ("primary", "Section 5.1, Table 1")
    first = published_table("omniglot")[0].figures["5-way-1-shot"].source
    assert first.citation.startswith("Snell et al. 2017, Omniglot table, as given in ")
    assert first.locator.startswith("docs/tutorials/meta_learning/metric_based_meta_learning/PN.md, commit ")
    aggregated = [
        figure for _, row in all_rows() for figure in row.figures.values() if figure.source.kind == "aggregator"
    ]
    assert aggregated == [lost["clean"]], "least trusted, so only where a gap is named"


# ---------------------------------------------------------------- against the collection


@needs_collection
@pytest.mark.parametrize("name", COLLECTED)
def test_every_figure_equals_the_collected_one(name: str) -> None:
    there, columns = COLLECTED[name]
    table = collected(there)
    rows = [row for row in table["rows"] if row["system"] != LEFT_OUT]
    for ours, theirs in zip(published_table(name), rows, strict=True):
        own = {column: ours.figures[column] for column in columns.values() if column in ours.figures}
        assert own.keys() == {columns[column] for column in theirs["results"] if column in columns}
        for column, result in theirs["results"].items():
            if column not in columns:
                continue
            figure = own[columns[column]]
            assert figure.value == pytest.approx(result["value"] / 100, abs=1e-12), (ours.system, column)
            if result["ci95"] is None:
                assert figure.half_width is None
            else:
                assert figure.half_width == pytest.approx(result["ci95"] / 100, abs=1e-12)
            document = table["documents"][result.get("source", theirs.get("source", table["source"]))]
            assert figure.source.kind == document["kind"]
            if "commit " in document["locator"]:
                commit = document["locator"].split("commit ")[1][:8]
                assert figure.source.locator.endswith(f"commit {commit}")


@needs_collection
@pytest.mark.parametrize("name", COLLECTED)
def test_what_a_row_says_of_its_system_equals_the_collected(name: str) -> None:
    rows = [row for row in collected(COLLECTED[name][0])["rows"] if row["system"] != LEFT_OUT]
    for ours, theirs in zip(published_table(name), rows, strict=True):
        assert ours.system.split(",")[0] == theirs["system"].split(",")[0].replace(" (full gradient)", "")
        assert ours.learner == NAMES.get(theirs.get("learner", ""), "")
        assert ours.backbone == theirs.get("backbone", "")
        assert ours.image_size == theirs.get("image_size")
        assert (ours.gradient == "lite") == theirs["lite"]
        assert ours.h == str(theirs["H"]) if "H" in theirs else True
        assert ours.seconds == theirs.get("adapt_time_s")
        assert ours.passes == theirs.get("adapt_steps", "")
        if "adapt_macs_tera" in theirs:
            assert ours.macs == pytest.approx(theirs["adapt_macs_tera"] * 1e12)
            assert ours.parameters == round(theirs["params_millions"] * 1e6)
            assert round(theirs["params_exact_recomputed"] / 1e6, 2) == theirs["params_millions"]


@needs_collection
def test_figure_3_repeats_two_rows_of_table_2_which_say_so() -> None:
    marked = [row for row in published_table("vtab_md_table2") if "Figure 3" in row.figures["VTAB"].source.locator]
    columns = COLLECTED["vtab_md_table2"][1]
    for ours, theirs in zip(marked, collected("vtabmd_fig3_groups")["rows"], strict=True):
        assert (ours.learner, ours.image_size, ours.h) == (
            NAMES[theirs["learner"]],
            theirs["image_size"],
            str(theirs["H"]),
        )
        values = {columns[column]: result["value"] for column, result in theirs["results"].items()}
        assert {column: 100 * figure.value for column, figure in ours.figures.items()} == pytest.approx(values)


# ---------------------------------------------------------------- consistency of the figures themselves


def test_vtab_is_the_mean_of_its_18_tasks_in_every_column_of_table_2() -> None:
    for row in published_table("vtab_md_table2"):
        natural, specialized, structured = (
            row.figures[each].value for each in ("natural", "specialized", "structured")
        )
        mean = (6 * natural + 4 * specialized + 8 * structured) / 18
        # Every one of the four is rounded to 0.1 %.
        assert row.figures["VTAB"].value == pytest.approx(mean, abs=0.001), row.h


def test_means_are_computed_only_from_all_tasks_of_a_group() -> None:
    suite = VtabMd(None, None, version="official")
    for row in published_table("vtab_1k"):
        for group in ("VTAB", "natural", "specialized", "structured"):
            members = [row.figures[task].value for task in suite.groups[group]]
            figure = row.figures[group]
            assert figure.value == pytest.approx(math.fsum(members) / len(members), abs=1e-12)
            assert figure.note.startswith(f"Computed here: the mean of the {len(members)} figures")
            assert ("without DTD" in figure.note) == (group in {"VTAB", "natural"})
        assert not any(row.figures[task].note for task in suite.groups["VTAB"])


def test_macs_of_table_1_keep_their_proportions() -> None:
    macs = {
        (row.learner, row.backbone, row.image_size): (row.macs or 0.0) / 1e12 for row in published_table("orbit_table1")
    }
    for network in (("RN-18", 84), ("RN-18", 224), ("EN-B0", 224)):
        one_pass = macs["protonets", *network]
        # 50 and 15 steps, each forward and backward; all are rounded to 0.01.
        assert macs["finetuner", *network] == pytest.approx(100 * one_pass, abs=0.5 + 0.005)
        assert macs["fomaml", *network] == pytest.approx(30 * one_pass, abs=0.15 + 0.005)
        # One more pass through the set encoder, whatever the backbone.
        encoder = {84: 0.30, 224: 2.17}[network[1]]
        assert macs["cnaps", *network] - one_pass == pytest.approx(encoder, abs=0.0101)


def test_intervals_of_video_accuracy_are_those_of_all_scores_and_not_of_85_tasks() -> None:
    """A score is 0 or 1, so accuracy and number of scores give the half width: 1.96 sqrt(p (1 - p) / n)."""
    misfits = []
    for row in published_table("orbit_table1"):
        for column, n in (("clean: video accuracy", 905), ("clutter: video accuracy", 1500)):
            figure = row.figures[column]
            assert figure.half_width is not None
            expected = 1.96 * math.sqrt(figure.value * (1 - figure.value) / n)
            # The accuracy is rounded to 0.1 %, the half width to 0.01 % and then to 0.1 %.
            if figure.half_width != pytest.approx(expected, abs=0.0006):
                misfits.append((row.system, row.backbone, row.image_size, column))
                assert "does not follow" in figure.note
            else:
                assert not figure.note
    assert misfits == [("FineTuner", "RN-18", 224, "clean: video accuracy")]


def test_costs_of_table_1_are_those_that_the_reproduction_is_held_to() -> None:
    """The rooms do not import each other, so these three columns are in both; here they are held equal."""
    backbones = {"RN-18": "ResNet-18", "EN-B0": "EfficientNet-B0"}
    for ours, other in zip(published_table("orbit_table1"), table1.published_rows(), strict=True):
        assert (ours.system, backbones[ours.backbone], ours.image_size) == (
            other.method,
            other.backbone,
            other.image_size,
        )
        assert ours.passes == other.steps
        assert ours.macs == pytest.approx(other.macs * 1e12)
        assert ours.parameters == pytest.approx(other.parameters * 1e6)


# ---------------------------------------------------------------- where they stand


@pytest.mark.parametrize(
    ("suite", "n"),
    [
        ("orbit@2021", 15),
        ("orbit@2022", 16),
        ("vtab_md@lite", 13),
        ("vtab_md@official", 16 + 2),
        ("omniglot@1", 35),
        ("omniglot@1+query=15", 35),
        ("omniglot@1+invert=true+protocol=mixed+split_seed=3+tasks=600", 35),
    ],
)
def test_rows_belong_to_a_suite_and_its_version(suite: str, n: int) -> None:
    assert len(published_rows(suite)) == n


@pytest.mark.parametrize(
    "suite",
    [
        "orbit",
        "orbit@2020",
        "orbit@2021+data=other",
        "orbit@2022+data=other",
        "vtab_md@lite+way=5",
        "vtab_md@official+tasks=100",
        "omniglot@2",
        "omniglot@1+rotations=false",
        "omniglot@1+query=1",
        "omniglot@1+way=10",
        "omniglot@1+shot=2",
        "omniglot@1+shot=5+unheard_of=1",
        "glyphs@1",
        "",
    ],
)
def test_other_tasks_than_the_published_have_no_rows(suite: str) -> None:
    assert published_rows(suite) == []


def test_way_and_shot_leave_the_columns_that_they_name() -> None:
    whole = {row.system: row.figures for row in published_rows("omniglot@1")}
    for way, shot in (("", "1"), ("5", ""), ("20", ""), ("5", "1"), ("20", "5")):
        suite = (
            "omniglot@1+query=15" + (f"+shot={shot}" if shot else "") + "+tasks=600" + (f"+way={way}" if way else "")
        )
        wanted = {f"{w}-way-{s}-shot" for w in (5, 20) for s in (1, 5) if way in {"", str(w)} and shot in {"", str(s)}}
        rows = published_rows(suite)
        assert {row.system for row in rows} == {name for name, figures in whole.items() if wanted & figures.keys()}
        for row in rows:
            assert row.figures == {name: each for name, each in whole[row.system].items() if name in wanted}
    assert len(published_rows("omniglot@1+shot=5")) < len(whole), "some systems have no figure with 5 shots"


def test_options_that_are_let_through_are_options_of_the_suite() -> None:
    (place,) = CONTENT["tables"]["omniglot"]["suites"]
    parameters = inspect.signature(Omniglot).parameters
    assert place["options"].keys() <= parameters.keys()
    assert "mixed" in str(parameters["protocol"].annotation)
    assert "rotations" not in place["options"], "published are classes turned by 90 degrees"


def test_differences_depend_on_the_options() -> None:
    def said(suite: str) -> str:
        return " ".join(published_rows(suite)[0].differences)

    assert "never seen in training" in said("omniglot@1")
    assert "white on black" in said("omniglot@1")
    assert "never seen in training" not in said("omniglot@1+protocol=mixed")
    assert "lists of characters are others" in said("omniglot@1+protocol=mixed")
    assert "white on black" not in said("omniglot@1+invert=true")


def test_figures_of_vtab_stand_beside_the_version_with_its_support_and_test_sets_only() -> None:
    """The other version has other support sets, other test sets of six tasks and other images of two."""
    ours = {row.system: row for row in published_rows("vtab_md@lite")}
    theirs = {row.system: row for row in published_rows("vtab_md@official")}
    assert not ours.keys() & theirs.keys()
    assert all("Table 2" in figure.source.locator for row in ours.values() for figure in row.figures.values())
    assert set(theirs["BiT-M-R101x3"].figures) == {"specialized", "structured"}
    meta_dataset = set(VtabMd(None, None).groups["MD-v2"])
    assert not any(meta_dataset & row.figures.keys() for row in theirs.values())


def test_the_interval_of_table_1_is_named_as_what_it_is() -> None:
    for row in published_table("orbit_table1"):
        assert "over all (task, video) scores, 905 clean and 1,500 clutter" in row.interval
        assert any("two models, each trained for its mode" in text for text in row.differences)


def test_a_table_is_found_by_name() -> None:
    assert set(CONTENT["tables"]) == set(COLLECTED)
    assert published_table("orbit_table1") == tuple(published_rows("orbit@2021"))
    with pytest.raises(
        UnknownNameError, match=r"There is no table of published figures called 'orbit_table'\. Did you"
    ):
        published_table("orbit_table")


def test_rows_are_plain_data() -> None:
    for _, row in all_rows():
        assert json.loads(json.dumps(asdict(row)))["figures"].keys() == row.figures.keys()
    published_rows("orbit@2021").clear()
    assert published_rows("orbit@2021")


def test_published_rows_have_no_rank_and_never_stand_beside_stand_ins_or_previews(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"suite": "orbit@2021", "sources": {"clean": 2, "clutter": 2}, "groups": {}}
    scores = {"clean": [0.5, 0.6], "clutter": [0.4, 0.3]}
    real = write_run(tmp_path / "real", make_manifest(**settings), scores)
    standin = write_run(tmp_path / "standin", make_manifest(**settings, data="other"), scores, synthetic=True)
    cut = {name: values[:1] for name, values in scores.items()}
    preview = write_run(tmp_path / "preview", make_manifest(**settings, limit=1), cut)

    def tables(published: bool) -> dict[tuple[bool, bool], Any]:
        results = [each for run in (real, standin, preview) for each in read_results(run)]
        found = make_tables(results, published=published)
        return {(table.synthetic, table.preview is not None): table for table in found}

    shown, plain = tables(published=True), tables(published=False)
    assert {key: len(table.published) for key, table in shown.items()} == {
        (False, False): 15,
        (True, False): 0,
        (False, True): 0,
    }
    assert all(table.published == () for table in plain.values())
    for key, table in shown.items():
        assert [(row.label, row.rank) for row in table.rows] == [(row.label, row.rank) for row in plain[key].rows]
