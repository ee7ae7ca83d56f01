"""Records survive the disk, a kill and a newer version; anything else wrong with them is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.harness.core import Cost, GroupScore, Record
from lite_bench.harness.errors import DataError
from lite_bench.harness.records import (
    MANIFEST,
    Manifest,
    append_record,
    file_name,
    read_manifest,
    read_records,
    read_results,
    records_path,
    repair,
    results_folder,
    write_manifest,
)

MANIFEST_VALUES: dict[str, Any] = {
    "suite": "letters@1",
    "split": "test",
    "seed": 0,
    "sources": {"Latin": 3, "Old Italic": 3},
    "groups": {"all": ["Latin", "Old Italic"]},
    "learner": "protonets",
    "backbone": "conv4",
    "image_size": 84,
    "checkpoint": "untrained",
    "data": "d",
}


def make_record(index: int = 0, accuracy: float = 0.5, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "task": f"letters@1/Latin/test/{index}",
        "suite": "letters@1",
        "source": "Latin",
        "learner": "protonets",
        "backbone": "conv4",
        "image_size": 84,
        "accuracy": accuracy,
        "way": 5,
        "n_support": 25,
        "n_query": 50,
        "adapt_seconds": 0.1,
        "classify_seconds": 1,
        "checkpoint": "untrained",
        "data": "d",
        "version": "0.1.0",
    }
    return Record(**(values | changes))


def line(**changes: Any) -> str:
    return json.dumps(dataclasses.asdict(make_record()) | changes) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The records of ``Latin`` in a run with a manifest and none yet."""
    write_manifest(results_folder(tmp_path, "letters@1"), Manifest(**MANIFEST_VALUES))
    return records_path(tmp_path, "letters@1", "Latin")


def test_records_come_back_as_they_were(path: Path) -> None:
    records = [make_record(0, 1 / 3), make_record(1, 0.1 + 0.2, synthetic=True, backbone="ä|\u2028 x")]
    for record in records:
        append_record(path, record)
    assert read_records(path) == records


@given(st.floats(0, 1), st.floats(0, 1e9))
def test_every_number_comes_back_to_the_last_bit(accuracy: float, seconds: float) -> None:
    path = Path("numbers.jsonl")
    path.unlink(missing_ok=True)
    append_record(path, make_record(0, accuracy, adapt_seconds=seconds))
    assert read_records(path) == [make_record(0, accuracy, adapt_seconds=seconds)]


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.jsonl") == []
    assert not repair(tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_a_kill_at_any_byte_loses_only_the_line_in_flight(tmp_path: Path) -> None:
    whole, last = line().encode(), line(task="letters@1/Latin/test/1").encode()
    path = tmp_path / "records.jsonl"
    for length in range(len(last)):
        path.write_bytes(whole + last[:length])
        finished = length == len(last) - 1
        assert len(read_records(path)) == 1 + finished
        assert repair(path) == (length > 0 and not finished)
        append_record(path, make_record(2))
        tasks = [record.task[-1] for record in read_records(path)]
        assert tasks == (["0", "1", "2"] if finished else ["0", "2"])


@pytest.mark.parametrize("tail", [b"\0\0\0", b"\0\n", b"\n", b"{\n", b"\xff\xfe"])
def test_rubbish_at_the_end_is_cut_off(path: Path, tail: bytes) -> None:
    path.write_bytes(line().encode() + tail)
    assert read_records(path) == [make_record()]
    assert repair(path)
    assert path.read_text() == line()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("oops\n", "Invalid JSON"),
        ("\n", "Invalid JSON"),
        ("[]\n", "object"),
        (line(accuracy="0.5"), "accuracy: .*number"),
        (line(accuracy=1.5), "accuracy 1.5 is not between 0 and 1"),
        (line(accuracy=float("nan")), "accuracy nan is not between 0 and 1"),
        (line(adapt_seconds=float("nan")), "adapt_seconds nan is not a number of seconds"),
        (line(classify_seconds=float("inf")), "classify_seconds inf is not a number of seconds"),
        (line(adapt_seconds=-1.0), "adapt_seconds -1.0 is not a number of seconds"),
        (line(way=2.5), "way: .*integer"),
        (line(synthetic="yes"), "synthetic: .*boolean"),
        (line().replace('"way": 5, ', ""), "way: .*required"),
    ],
)
def test_any_other_bad_line_is_named(path: Path, bad: str, reason: str) -> None:
    path.write_text(line() + bad + line(task="letters@1/Latin/test/1"))
    with pytest.raises(DataError, match=rf"Latin\.jsonl, line 2 is damaged: .*{reason}"):
        read_records(path)


def test_a_whole_last_line_with_a_missing_field_is_no_kill(path: Path) -> None:
    path.write_text(line().replace('"way": 5, ', ""))
    with pytest.raises(DataError, match="line 1 is damaged: way"):
        read_records(path)


def test_an_unknown_schema_is_named(path: Path, tmp_path: Path) -> None:
    path.write_text(line() + line(schema=2, accuracy="a half"))  # a later version may write it otherwise
    with pytest.raises(DataError, match=r"Latin\.jsonl, line 2 has the schema 2, .* reads 1; read it with the version"):
        read_records(path)
    manifest = path.with_name(MANIFEST)
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 9, "sources": 3'))
    with pytest.raises(DataError, match=r"suite\.json has the schema 9"):
        read_results(tmp_path)


def test_records_from_before_there_was_a_schema_are_read(path: Path, tmp_path: Path) -> None:
    path.write_text(line().replace(', "schema": 1', ""))
    manifest = path.with_name(MANIFEST)
    manifest.write_text(manifest.read_text().replace(',\n  "schema": 1', ""))
    assert read_results(tmp_path)[0].records["Latin"] == (make_record(),)


def test_an_unfinished_last_line_is_left_out_and_told(path: Path, tmp_path: Path) -> None:
    path.write_text(line() + line(task="letters@1/Latin/test/1")[:-40])
    (results,) = read_results(tmp_path)
    assert (len(results.records["Latin"]), results.files, results.unfinished) == (1, (path,), (path,))


def test_records_share_what_they_have_in_common(path: Path) -> None:
    cost = {"macs": 5}
    path.write_text(line(cost=cost) + line(task="letters@1/Latin/test/1", cost=cost))
    one, other = read_records(path)
    assert one.cost is other.cost
    assert one.checkpoint is other.checkpoint
    assert one == make_record(cost=Cost(macs=5))


def test_fields_of_a_newer_version_are_ignored(path: Path) -> None:
    path.write_text(line(macs=12))
    assert read_records(path) == [make_record()]


def test_the_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = Manifest(**MANIFEST_VALUES, precision="bfloat16", label="mine", limit=2)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert list(read_manifest(tmp_path).sources) == ["Latin", "Old Italic"]
    assert manifest.expected("Latin") == 2
    assert Manifest(**MANIFEST_VALUES, limit=9).expected("Latin") == 3
    assert Manifest(**MANIFEST_VALUES).expected("Latin") == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"split": "tset"}, "split"),
        ({"limit": "5"}, "limit"),
        ({"sources": {"Latin": None}}, "sources.Latin"),
        ({"groups": {"all": ["Greek"]}}, "unknown sources: Greek"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(MANIFEST_VALUES | change))
    with pytest.raises(DataError, match=rf"suite\.json is damaged: .*{reason}"):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"suite\.json is missing; repeat"):
        read_manifest(tmp_path)


@given(st.text("aZ0 ./\\:*?%@+é日\n\0|~-_", min_size=1, max_size=12))
def test_any_name_makes_a_plain_reversible_file_name(name: str) -> None:
    text = file_name(name)
    assert unquote(text) == name
    assert not text.startswith(".")
    assert not set(text) & set('/\\: *?"<>|\n\0')


def test_results_keep_the_manifests_order_and_every_source(path: Path, tmp_path: Path) -> None:
    append_record(path, make_record())
    (results,) = read_results(tmp_path)
    assert results.manifest == Manifest(**MANIFEST_VALUES)
    assert results.records == {"Latin": (make_record(),), "Old Italic": ()}
    assert read_results(tmp_path / "elsewhere") == []


def test_a_task_done_twice_with_the_same_outcome_counts_once(path: Path, tmp_path: Path) -> None:
    path.write_text(line() + line(adapt_seconds=9.0))
    assert read_results(tmp_path)[0].records["Latin"] == (make_record(),)


def test_a_task_with_two_outcomes_is_an_error(path: Path, tmp_path: Path) -> None:
    path.write_text(line() + line(accuracy=0.25))
    with pytest.raises(DataError, match=r"line 2: task letters@1/Latin/test/0 has accuracy 0.25, but 0.5"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "letters@2"},
        {"learner": "cnaps"},
        {"image_size": 224},
        {"checkpoint": "abc"},
        {"data": "e"},
        {"source": "Greek"},
        {"task": "letters@2/Latin/test/0"},
        {"task": "letters@1/Greek/test/0"},
        {"task": "letters@1/Latin/validation/0"},
        {"task": "letters@1/Latin/test/0?seed=1"},
        {"task": "nonsense"},
        {"task": "letters@1/Latin/test/0?seed=nonsense"},
        {"task": "letters@1/Latin/test/00"},
        {"task": "letters@1/Latin/test/3"},
    ],
)
def test_records_of_another_evaluation_do_not_mix(path: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    path.write_text(line(**change))
    with pytest.raises(DataError, match=r"Latin\.jsonl, line 1: "):
        read_results(tmp_path)


def test_more_tasks_than_the_protocol_has_is_an_error(path: Path, tmp_path: Path) -> None:
    for index in range(4):
        append_record(path, make_record(index))
    with pytest.raises(DataError, match=r"line 4: .*/3 is not one of the protocol's 3 tasks"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_support": 10**400}, "n_support 1000*000 is not a count"),
        ({"way": -1}, "way -1 is not a count"),
        ({"cost": Cost(macs=-3)}, r"cost\.macs -3 is not a count"),
        ({"cost": Cost(peak_bytes=2**63)}, r"cost\.peak_bytes \d+ is not a count"),
        ({"n_query": 0}, "it has an accuracy of no queries"),
        ({"groups": (GroupScore("v", 3, 7.0, 1.0, 0.0),)}, "7.0 of group v is not between 0 and 1"),
        ({"groups": (GroupScore("v", 3, 0.5, 1.0, 0.0),) * 2}, "two of its groups have one name"),
    ],
)
def test_numbers_that_cannot_be_are_named(path: Path, change: dict[str, Any], words: str) -> None:
    append_record(path, make_record(1))
    append_record(path, make_record(**change))
    with pytest.raises(DataError, match=f"line 2 is damaged: {words}; delete the line"):
        read_records(path)


def test_a_task_that_failed_may_have_had_no_queries(path: Path) -> None:
    append_record(path, dataclasses.replace(make_record(n_query=0, failed="no frames"), accuracy=None))
    assert read_records(path)[0].failed == "no frames"


def test_scores_of_groups_that_are_reported_must_be_there(path: Path, tmp_path: Path) -> None:
    write_manifest(path.parent, Manifest(**MANIFEST_VALUES, metrics=["frame accuracy"]))
    append_record(path, make_record())
    with pytest.raises(DataError, match=r"Latin\.jsonl, line 1 is damaged: its queries have no groups"):
        read_results(tmp_path)


@pytest.mark.parametrize("change", [{"limit": 0}, {"sources": {"Latin": 0, "Old Italic": 3}}])
def test_a_manifest_asks_for_a_task_at_least(tmp_path: Path, change: dict[str, Any]) -> None:
    write_manifest(tmp_path, Manifest(**(MANIFEST_VALUES | change)))
    with pytest.raises(DataError, match=r"suite\.json is damaged: it asks for less than one task"):
        read_manifest(tmp_path)


def test_a_renamed_file_of_records_is_not_passed_over(path: Path, tmp_path: Path) -> None:
    path.with_name("Old Italic.jsonl").touch()
    with pytest.raises(DataError, match=r"Old Italic\.jsonl is not named as .*; call it Old%20Italic\.jsonl"):
        read_results(tmp_path)


def test_records_of_an_unlisted_source_are_not_skipped(path: Path, tmp_path: Path) -> None:
    append_record(path.with_name("Greek.jsonl"), make_record())
    with pytest.raises(DataError, match=r"Greek\.jsonl holds records of a source"):
        read_results(tmp_path)


def test_a_folder_in_place_of_a_file_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DataError, match=r"Could not read .*Latin\.jsonl: Is a directory"):
        read_records(path)
