"""Names of rows are different from each other and no longer than they must be."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lite_bench.leaderboard.labels import tell_apart


def test_a_name_that_is_alone_stays_as_it_is() -> None:
    assert tell_apart(["a", "b"], [("x", "y"), ("x", "y")]) == ["a", "b"]


def test_the_fewest_and_most_telling_parts_are_added() -> None:
    parts = [("H=1", "RN", "224"), ("H=40", "RN", "224"), ("H=40", "RN", "84"), ("", "EN", "84")]
    assert tell_apart(["a"] * 4, parts) == ["a (H=1)", "a (H=40, 224)", "a (H=40, 84)", "a (EN)"]


def test_rows_that_nothing_tells_apart_keep_their_name() -> None:
    assert tell_apart(["a", "a", "b"], [("x",), ("x",), ("y",)]) == ["a", "a", "b"]
    assert tell_apart(["a", "a", "a"], [("x",), ("x",), ("y",)]) == ["a (x)", "a (x)", "a (y)"]


def test_a_part_that_reads_like_another_kind_of_another_row_does_not_make_labels_equal() -> None:
    labels = tell_apart(["a"] * 3, [("x", "x", "x"), ("x", "x", "y"), ("x", "y", "x")])
    assert labels == ["a (x, x)", "a (x, y)", "a (y, x)"]


part = st.tuples(st.sampled_from(["x1", "x2"]), st.sampled_from(["y1", "y2", "y3"]), st.sampled_from(["z1", "z2"]))


@given(st.lists(st.tuples(st.sampled_from("ab"), part), max_size=8))
def test_rows_that_differ_have_different_labels_of_as_few_parts_as_will_do(rows: list[tuple[str, list[str]]]) -> None:
    names, parts = [name for name, _ in rows], [own for _, own in rows]
    labels = tell_apart(names, parts)
    for (one, first), (other, second) in itertools.combinations(zip(rows, labels, strict=True), 2):
        assert (first == second) == (one == other)
    for (name, own), label in zip(rows, labels, strict=True):
        same = [each for other, each in rows if other == name]
        used = label.count(",") + 1 if "(" in label else 0
        fewer = [choice for size in range(used) for choice in itertools.combinations(range(3), size)]
        if same.count(own) == 1:
            assert all(sum(all(each[i] == own[i] for i in choice) for each in same) > 1 for choice in fewer)
