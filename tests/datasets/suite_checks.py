"""What every suite must do; each suite's tests call these with a suite of their own."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import torch

from lite_bench.harness.core import Episode, QueryBatch, Suite, Task


def queries(episode: Episode) -> QueryBatch:
    """Put all query batches together."""
    batches = list(episode.query)
    return QueryBatch(torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches]))


def all_images(episode: Episode) -> torch.Tensor:
    return torch.cat([episode.support.images, queries(episode).images])


def same(a: Episode, b: Episode) -> bool:
    return (
        torch.equal(all_images(a), all_images(b))
        and torch.equal(a.support.labels, b.support.labels)
        and torch.equal(queries(a).labels, queries(b).labels)
    )


def check_id(suite: Suite) -> None:
    assert re.fullmatch(r"[a-z][A-Za-z0-9._-]*@\d+(\+[a-z_]+=[A-Za-z0-9._-]+)*", suite.id)
    options = suite.id.split("+")[1:]
    assert options == sorted(options)


def check_episode(suite: Suite, task: Task) -> Episode:
    """Check shapes, types and labels."""
    episode = suite.episode(task)
    support, query = episode.support, queries(episode)
    side = suite.image_size
    assert episode.task == task
    assert support.images.dtype == query.images.dtype == torch.uint8
    assert support.labels.dtype == query.labels.dtype == torch.int64
    assert support.images.shape == (len(support.labels), 3, side, side)
    assert query.images.shape == (len(query.labels), 3, side, side)
    assert len(query.labels) == episode.n_query
    assert sorted(set(support.labels.tolist())) == list(range(support.way))
    assert sorted(set(query.labels.tolist())) == list(range(support.way))
    assert len(set(query.labels.bincount().tolist())) == 1
    assert support.images.is_contiguous()
    return episode


def check_suite(suite: Suite) -> None:
    """Check names, tasks and episodes, and that an episode depends on its task alone."""
    check_id(suite)
    assert re.fullmatch("[0-9a-f]{64}", suite.fingerprint)
    test, validation = suite.tasks("test"), suite.tasks("validation")
    assert all(source in test for members in suite.groups.values() for source in members)
    names = [str(task) for tasks in (*test.values(), *validation.values()) for task in tasks]
    assert len(set(names)) == len(names)
    assert all(str(Task.parse(name)) == name for name in names)
    assert suite.tasks("test") == test
    tasks = [*(x[0] for x in test.values()), *(x[0] for x in validation.values())]
    tasks += [suite.train_task(0, 0), suite.train_task(1, 0), suite.train_task(0, 1)]
    assert len({str(task) for task in tasks}) == len(tasks)
    first = [check_episode(suite, task) for task in tasks]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(suite.episode, reversed(tasks)))
    assert all(same(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert not same(first[-2], first[-3])
    assert not same(first[-1], first[-3])
