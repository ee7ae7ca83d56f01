"""The costs of Table 1: sizes of the test tasks, and every figure of every row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lite_bench.datasets.orbit import table1
from lite_bench.datasets.orbit.published import published_users
from lite_bench.datasets.orbit.table1 import Table1Costs, published_rows
from lite_bench.datasets.orbit.videos import KINDS, Kind
from lite_bench.harness.assembly import build_learner
from lite_bench.harness.core import TaskSizes
from lite_bench.harness.errors import UsageError
from lite_bench.harness.measurement.published import network_counter
from lite_bench.harness.reproduction import Figure, Row, verdict
from lite_bench.harness.settings import resolve

COSTS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "FineTuner": ((282.090, 353.301, 317.696), (485.305, 607.816, 546.560), (107.455, 134.581, 121.018)),
    "MAML": ((84.627, 105.990, 95.309), (145.592, 182.345, 163.968), (32.236, 40.374, 36.305)),
    "ProtoNets": ((2.8209, 3.5330, 3.1770), (4.8531, 6.0782, 5.4656), (1.0745, 1.3458, 1.2102)),
    "CNAPs": ((3.0905, 3.8707, 3.4806), (6.7795, 8.4910, 7.6352), (3.0011, 3.7586, 3.3799)),
    "Simple CNAPs": ((3.0911, 3.8714, 3.4812), (6.7801, 8.4916, 7.6359), (3.0087, 3.7665, 3.3876)),
}
"""Clean, clutter and mean, of ResNet-18 at 84 and 224 pixels and EfficientNet-B0 at 224, in 1e12."""
PRINTED = {
    "FineTuner": ((317.70, 546.57, 121.02), (11.17, 11.18, 4.01), "50FB"),
    "MAML": ((95.31, 163.97, 36.31), (11.17, 11.18, 4.01), "15FB"),
    "ProtoNets": ((3.18, 5.47, 1.21), (11.17, 11.18, 4.01), "1F"),
    "CNAPs": ((3.48, 7.64, 3.38), (12.75, 12.76, 10.59), "1F"),
    "Simple CNAPs": ((3.48, 7.64, 3.39), (11.97, 11.97, 5.67), "1F"),
}
"""MACs and parameters as printed, and steps."""
PARAMETERS = {
    "FineTuner": (11_171_904, 11_176_512, 4_007_548),
    "MAML": (11_171_904, 11_176_512, 4_007_548),
    "ProtoNets": (11_171_904, 11_176_512, 4_007_548),
    "CNAPs": (12_754_629, 12_759_237, 10_588_289),
    "Simple CNAPs": (11_966_144, 11_970_752, 5_667_964),
}
PLACES = {("ResNet-18", "84"): 0, ("ResNet-18", "224"): 1, ("EfficientNet-B0", "224"): 2}

Sizes = dict[Kind, tuple[TaskSizes, ...]]


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    return Table1Costs().task_sizes()


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int, int, str]]:
    return []


@pytest.fixture(scope="module")
def rows(told: list[tuple[str, int, int, str]], sizes: Sizes) -> Sequence[Row]:
    """All rows, computed once."""

    class Drawn(Table1Costs):
        def task_sizes(self) -> dict[Kind, tuple[TaskSizes, ...]]:
            return sizes

    return Drawn().rows(lambda *words: told.append(words))


def place(row: Row) -> tuple[str, int]:
    return row.labels["method"].removesuffix(" + LITE"), PLACES[row.labels["backbone"], row.labels["size"]]


# --- sizes


def test_there_are_five_tasks_of_each_of_17_users(sizes: Sizes) -> None:
    for mode in KINDS:
        assert len(sizes[mode]) == 85
        for first in range(0, 85, 5):
            assert len(set(sizes[mode][first : first + 5])) == 1
        assert {each.frames for each in sizes[mode]} == {8}


@pytest.mark.parametrize(
    ("mode", "mean", "least", "most", "frames"),
    [("clean", 337.41, 144, 464, 2699.29), ("clutter", 422.59, 184, 592, 3380.71)],
)
def test_sizes_are_those_of_the_published_tasks(
    sizes: Sizes, mode: Kind, mean: float, least: int, most: int, frames: float
) -> None:
    items = [each.items for each in sizes[mode]]
    assert sum(items) / 85 == pytest.approx(mean, abs=0.005)
    assert (min(items), max(items)) == (least, most)
    assert sum(each.images for each in sizes[mode]) / 85 == pytest.approx(frames, abs=0.005)
    of_user = {user: items[5 * number] for number, user in enumerate(published_users()["test"])}
    assert (of_user["P554"], of_user["P642"]) == (least, most)


def test_a_class_has_eight_clips_of_each_context_video(sizes: Sizes) -> None:
    for number, objects in enumerate(published_users()["test"].values()):
        clean, clutter = (sizes[mode][5 * number].class_counts for mode in KINDS)
        assert clean == tuple(8 * min(5, each.clean - 1) for each in objects)
        assert clutter == tuple(8 * each.clean for each in objects)


@pytest.mark.parametrize("n_frames", [7, 64, 300, 2000])
def test_the_unknown_lengths_of_clean_videos_play_no_part(
    n_frames: int, sizes: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table1, "UNKNOWN_FRAMES", n_frames)
    monkeypatch.setattr(table1, "published_users", lambda: {"test": some_users()})
    chosen = [number for number, user in enumerate(published_users()["test"]) if user in some_users()]
    found = Table1Costs().task_sizes()
    assert found == {mode: tuple(sizes[mode][5 * n + k] for n in chosen for k in range(5)) for mode in KINDS}


def some_users() -> dict[str, object]:
    return {user: objects for user, objects in published_users()["test"].items() if user in ("P233", "P554")}


# --- costs


def test_all_rows_are_there_in_the_order_of_the_table(rows: Sequence[Row], told: Sequence[object]) -> None:
    assert [place(row) for row in rows] == [(method, number) for method in COSTS for number in range(3)]
    lite = [row.labels["method"].endswith("LITE") for row in rows]
    assert lite == [False] * 6 + [False, True, True] * 3
    assert len(told) == 15
    assert told[-1] == ("rows", 15, 15, "Simple CNAPs + LITE EfficientNet-B0 224")


def test_macs_of_both_modes_and_their_mean(rows: Sequence[Row]) -> None:
    for row in rows:
        method, number = place(row)
        expected = COSTS[method][number]
        found = [figure.ours for figure in row.figures[:3]]
        assert [figure.name for figure in row.figures[:3]] == ["clean MACs (T)", "clutter MACs (T)", "MACs (T)"]
        assert found == pytest.approx(expected, abs=5.1e-4 if method in ("FineTuner", "MAML") else 5.1e-5)


def number_of(figure: Figure) -> float:
    assert isinstance(figure.ours, float)
    return figure.ours


def test_published_figures_are_as_printed_and_agree(rows: Sequence[Row]) -> None:
    for row in rows:
        method, number = place(row)
        macs, steps, parameters = row.figures[2:]
        printed_macs, printed_parameters, printed_steps = PRINTED[method]
        assert (macs.published, parameters.published) == (printed_macs[number], printed_parameters[number])
        assert steps.ours == steps.published == printed_steps
        assert number_of(parameters) * 1e6 == pytest.approx(PARAMETERS[method][number], abs=0.5)
        assert row.agrees
        rounding = (method, number) == ("FineTuner", 1)
        assert macs.tolerance == (0.01 if rounding else 0.005)
        assert (f"{macs.ours:.2f}" == f"{macs.published:.2f}") != rounding
    assert verdict(rows) == (
        "15 of 15 rows agree with what is published: MACs (T) within 0.005 (0.01 in 1 row), steps exactly, "
        "parameters (M) within 0.005."
    )


def test_the_last_digit_of_one_row_is_that_of_rounding_each_mode_first(rows: Sequence[Row]) -> None:
    clean, clutter, macs = (figure for figure in rows[1].figures[:3])
    assert round((round(number_of(clean), 2) + round(number_of(clutter), 2)) / 2 + 1e-9, 2) == macs.published


def test_steps_multiply_the_cost_of_protonets(rows: Sequence[Row]) -> None:
    """FineTuner is 100 times, MAML 30 times ProtoNets, within 0.1 %."""
    macs = {place(row): number_of(row.figures[2]) for row in rows}
    for number in range(3):
        plain = macs["ProtoNets", number]
        assert macs["FineTuner", number] / plain == pytest.approx(100, rel=1e-3)
        assert macs["MAML", number] / plain == pytest.approx(30, rel=1e-3)


def test_one_task_to_the_unit(sizes: Sizes) -> None:
    row = next(each for each in published_rows() if each.recipe == "orbit_protonets_resnet18_224")
    settings = resolve({"pretrained": False}, Path(f"recipes/{row.recipe}.toml"))
    learner, _ = build_learner(settings, row.image_size)
    first = 5 * list(published_users()["test"]).index("P554")
    counted = [learner.published_macs(sizes[mode][first], network_counter(224)) for mode in KINDS]  # type: ignore[attr-defined]  # an optional method
    assert counted == [2_071_176_790_224, 2_646_503_674_264]


def test_no_data_is_asked_for() -> None:
    with pytest.raises(UsageError, match="--data-dir here plays no part: these costs need no data; leave it out"):
        Table1Costs(Path("here"))
