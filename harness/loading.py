"""Episodes prepared ahead of their use, in threads, always in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from lite_bench.harness.core import Episode, Suite, Task


class EpisodeStream:
    """Makes the episodes of a list of tasks, a few ahead of the one in use.

    Image decoding releases Python's lock, so threads run it in parallel without copying images between processes.

    Attributes:
        waited: seconds spent waiting for data so far.
    """

    def __init__(self, suite: Suite, tasks: Iterable[Task], ahead: int) -> None:
        """Prepare up to ``ahead`` episodes of ``tasks`` before they are asked for."""
        self.suite = suite
        self.tasks = iter(tasks)
        self.ahead = max(1, ahead)
        self.waited = 0.0

    def __iter__(self) -> Generator[Episode, None, None]:
        """Yield the episodes in order; an error in making one is raised when its turn comes."""
        pool = ThreadPoolExecutor(self.ahead, thread_name_prefix="episode")
        pending: deque[Future[Episode]] = deque()
        try:
            while True:
                while len(pending) <= self.ahead and (job := self._submit(pool)) is not None:
                    pending.append(job)
                if not pending:
                    return
                start = time.perf_counter()
                episode = pending.popleft().result()
                self.waited += time.perf_counter() - start
                yield episode
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor) -> Future[Episode] | None:
        """Start on the next task, or give None after the last; an error in naming it becomes the job's own."""
        try:
            return pool.submit(self.suite.episode, next(self.tasks))
        except StopIteration:
            return None
        except Exception as error:
            failed: Future[Episode] = Future()
            failed.set_exception(error)
            return failed
