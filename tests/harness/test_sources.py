"""Suites of several data sets, some of them missing: what is evaluated, recorded and averaged."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lite_bench.harness.assembly import assemble, build_suite
from lite_bench.harness.cli.evaluate import on_suite, without_version
from lite_bench.harness.cli.train import fingerprints, open_suite, refuse_other_data
from lite_bench.harness.core import SourceData, Suite
from lite_bench.harness.errors import DataError, RunError, UsageError
from lite_bench.harness.evaluation import LOCK, Evaluation, evaluate
from lite_bench.harness.files import locked
from lite_bench.harness.records import Manifest, read_records, read_results, records_path
from lite_bench.harness.runs import create_run
from lite_bench.harness.statistics import summarise
from lite_bench.leaderboard.rows import NO_DATA
from lite_bench.leaderboard.tables import make_tables
from tests.harness.small import FLAGS, Shell, small_settings, small_suite

SETTINGS = small_settings(limit=1)


@dataclass
class Several:
    """The small suite, as if each of its sources had data of its own."""

    inner: Suite
    source_data: dict[str, SourceData] = field(default_factory=dict)
    train_data: dict[str, SourceData] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture
def suite() -> Several:
    inner = small_suite()
    return Several(inner, {name: SourceData(f"data of {name}") for name in inner.tasks("test")})


def run(suite: Any, folder: Path, **options: Any) -> Manifest:
    assembly = assemble(SETTINGS, suite.image_size)
    parts = (assembly.learner, assembly.module, assembly.estimator, SETTINGS, assembly.device)
    return evaluate(Evaluation(*parts), suite, folder, **options)


def without(suite: Several, *names: str) -> Several:
    changed = {name: SourceData(missing=f"There is no {name}.") for name in names}
    return replace(suite, source_data={**suite.source_data, **changed})


def test_missing_sources_are_passed_over_and_not_averaged_over(suite: Several, tmp_path: Path) -> None:
    first, *others = suite.source_data
    manifest = run(without(suite, first), tmp_path)
    assert manifest.missing == {first: f"There is no {first}."}
    assert set(manifest.sources) == set(suite.source_data)
    assert set(manifest.source_data) == set(others)
    (results,) = read_results(tmp_path)
    assert [len(results.records[name]) for name in suite.source_data] == [0] + [1] * len(others)
    assert {record.data for record in results.records[others[0]]} == {f"data of {others[0]}"}
    summary = summarise(results.manifest, results.records)
    assert all(mean is None for name, mean in summary.groups.items() if first in manifest.groups[name])
    (table,) = make_tables([results])
    cell = table.rows[0].sources[first]
    assert (cell.estimate, cell.missing) == (None, NO_DATA)
    assert table.rows[0].rank is None


def test_a_source_that_is_there_later_is_added(suite: Several, tmp_path: Path) -> None:
    first = next(iter(suite.source_data))
    run(without(suite, first), tmp_path)
    earlier = {name: read_records(records_path(tmp_path, suite.id, name)) for name in suite.source_data}
    manifest = run(suite, tmp_path)
    assert manifest.missing == {}
    assert set(manifest.source_data) == set(suite.source_data)
    for name in suite.source_data:
        now = read_records(records_path(tmp_path, suite.id, name))
        assert now == earlier[name] or name == first
        assert len(now) == 1
    run(without(suite, first), tmp_path)
    assert len(read_records(records_path(tmp_path, suite.id, first))) == 1


def test_other_data_of_one_source_does_not_mix(suite: Several, tmp_path: Path) -> None:
    first = next(iter(suite.source_data))
    run(suite, tmp_path)
    other = replace(suite, source_data={**suite.source_data, first: SourceData("other data")})
    said = rf"another data of {first} \('data of {first}', now 'other data'\); use --overwrite"
    with pytest.raises(RunError, match=said):
        run(other, tmp_path)
    assert run(other, tmp_path, overwrite=True).source_data[first] == "other data"


def test_results_on_stand_ins_say_so(suite: Several, tmp_path: Path) -> None:
    first, second, *_ = suite.source_data
    made_up = {**suite.source_data, first: SourceData("made up", synthetic=True)}
    run(replace(suite, source_data=made_up), tmp_path)
    assert read_records(records_path(tmp_path, suite.id, first))[0].synthetic
    assert not read_records(records_path(tmp_path, suite.id, second))[0].synthetic


def test_nothing_to_evaluate_is_an_error(suite: Several, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No source of .* can be evaluated: There is no "):
        run(without(suite, *suite.source_data), tmp_path)


def test_no_run_folder_is_left_by_an_evaluation_that_has_no_data(
    suite: Several, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lite_bench.datasets.glyphs.Glyphs.source_data", without(suite, *suite.source_data).source_data, raising=False
    )
    assert "can be evaluated: There is no" in shell.fails("eval", "protonets", *FLAGS, code=1)
    assert not Path("runs").exists()


def test_two_evaluations_do_not_write_to_one_run_at_once(suite: Several, tmp_path: Path) -> None:
    with locked(tmp_path / LOCK, "held"), pytest.raises(RunError, match=r"Another evaluation is writing to .*; wait"):
        run(suite, tmp_path)
    run(suite, tmp_path)


def test_a_training_goes_on_with_the_data_it_began_with(
    suite: Several, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings()
    run = create_run(tmp_path, settings, suite.image_size, "train", "one", data=fingerprints(small_suite()))
    refuse_other_data(run, small_suite())
    monkeypatch.setattr("lite_bench.datasets.glyphs.Glyphs.fingerprint", "other")
    with pytest.raises(RunError, match=r"The data of glyphs@1.* is not what .*one was trained on so far; put the"):
        refuse_other_data(run, small_suite())


def test_only_training_sources_hold_up_a_training(suite: Several, tmp_path: Path) -> None:
    suite.train_data = {"photographs": SourceData("as ever")}
    run = create_run(tmp_path, small_settings(), suite.image_size, "train", "two", data=fingerprints(suite))
    first = next(iter(suite.source_data))
    suite.source_data[first] = SourceData("other data")
    refuse_other_data(run, suite)
    suite.train_data = {"photographs": SourceData("changed")}
    with pytest.raises(RunError, match=f"The data of {re.escape(suite.id)}/train/photographs is not what"):
        refuse_other_data(run, suite)


def test_the_digest_is_that_of_the_printed_tasks(suite: Several, tmp_path: Path) -> None:
    manifest = run(suite, tmp_path)
    for name, tasks in suite.tasks("test").items():
        text = "".join(f"{task}\n" for task in tasks)
        assert manifest.digests[name] == hashlib.sha256(text.encode()).hexdigest()


def test_runs_on_the_same_data_share_a_table_whatever_they_lack(suite: Several, tmp_path: Path) -> None:
    first, second, *_ = suite.source_data
    run(without(suite, first), tmp_path / "a")
    run(without(suite, second), tmp_path / "b")
    other = replace(suite, source_data={**suite.source_data, second: SourceData("other data")})
    run(other, tmp_path / "c")
    results = []
    for name in "abc":
        (found,) = read_results(tmp_path / name)
        results.append(replace(found, manifest=replace(found.manifest, label=name)))
    assert sorted(len(table.rows) for table in make_tables(results)) == [1, 2]
    assert [len(table.rows) for table in make_tables(results[:2])] == [2]


def test_the_range_of_pixels_comes_from_the_suite_and_stays_with_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = open_suite(small_settings())
    assert settings.pixel_range == "backbone"
    monkeypatch.setattr("lite_bench.datasets.glyphs.Glyphs.pixel_range", "signed", raising=False)
    asked, _ = open_suite(small_settings())
    assert asked.pixel_range == "signed"
    assert open_suite(small_settings(pixel_range="backbone"))[0].pixel_range == "backbone"
    # a run keeps what it was trained on, and one from before this was recorded had the backbone's
    assert on_suite(asked, {"suite": "glyphs"}).pixel_range == "signed"
    assert open_suite(on_suite(small_settings(), {}))[0].pixel_range == "backbone"


def test_a_version_may_be_named_with_the_suite() -> None:
    options = small_settings().suite_options
    assert build_suite("glyphs@1", 28, None, options).id == small_suite().id
    with pytest.raises(UsageError, match=r"Suite glyphs has the version 1, not 2; write --suite glyphs@1\."):
        build_suite("glyphs@2", 28, None, options)


def test_another_version_of_a_runs_suite_keeps_its_options_and_data() -> None:
    own = small_settings(suite="glyphs@1", suite_options={"version": "lite", "way": 3}, data_dir=Path("data"))
    assert on_suite(own, {}).suite_options == own.suite_options
    other = on_suite(own, {"suite": "glyphs@2"})
    assert (other.suite, other.suite_options, other.data_dir) == ("glyphs@2", {"way": 3}, Path("data"))
    assert on_suite(own, {"suite": "glyphs"}).suite_options == own.suite_options
    assert without_version("folder:cats@2x") == "folder:cats@2x"
    foreign = on_suite(own, {"suite": "omniglot"})
    assert (foreign.suite_options, foreign.data_dir) == ({}, None)
