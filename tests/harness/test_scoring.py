"""The scores of a video, by the examples of ORBIT's protocol and by counting."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_bench.harness.core import GROUP_METRICS
from lite_bench.harness.scoring import Score, score_group, score_groups


@pytest.mark.parametrize(
    ("predicted", "label", "frame", "video", "first"),
    [
        ([0, 0, 1, 1], 1, 0.5, 0.0, 0.5),  # a tie goes to the smaller class
        ([2, 1, 1, 2], 1, 0.5, 1.0, 0.25),
        ([2, 1, 1, 2], 2, 0.5, 0.0, 0.0),
        ([0, 0, 0], 1, 0.0, 0.0, 1.0),
        ([1, 0, 0], 1, 1 / 3, 0.0, 0.0),
        ([3], 3, 1.0, 1.0, 0.0),
    ],
)
def test_the_protocols_examples(predicted: list[int], label: int, frame: float, video: float, first: float) -> None:
    score = score_group("v", predicted, [label] * len(predicted))
    assert [score.metric(name) for name in GROUP_METRICS] == [pytest.approx(frame), video, first]
    assert (score.name, score.n) == ("v", len(predicted))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 4))
def test_scores_agree_with_counting(predicted: list[int], label: int) -> None:
    score = score_group("v", predicted, [label] * len(predicted))
    counts = Counter(predicted)
    most = min(c for c in counts if counts[c] == max(counts.values()))
    assert score.frame_accuracy == pytest.approx(counts[label] / len(predicted))
    assert score.video_accuracy == float(most == label)
    assert score.frames_to_recognition == (predicted.index(label) / len(predicted) if label in predicted else 1.0)


def test_groups_are_gathered_over_batches() -> None:
    batches = [([0, 1], [0, 0], [0, 0]), ([1, 1], [0, 1], [0, 1]), ([0], [1], [1])]
    scores, predicted = score_groups(["a", "b"], batches)
    assert predicted == {"a": (0, 1, 1), "b": (1, 0)}
    assert [score.frame_accuracy for score in scores] == [pytest.approx(1 / 3), 0.5]


def test_a_task_of_groups_counts_each_group_alike() -> None:
    scores, predicted = score_groups(["a", "b"], [([0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1])])
    score = Score(3, 4, 0.0, 0.0, scores, predicted)
    assert (score.values, score.accuracy) == ([1.0, 0.0], 0.5)
    assert Score(3, 4, 0.0, 0.0).values == [0.75]
