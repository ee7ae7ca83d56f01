"""What a table rests on, so that anyone can check it and make it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lite_bench.harness.records import joined_versions
from lite_bench.harness.registry import SUITES
from lite_bench.leaderboard.rows import Row

SHORT = 12
"""Characters of a digest where people read it; programs get it whole."""


@dataclass(frozen=True)
class Provenance:
    """What a table rests on.

    Attributes:
        suite: suite and version.
        tasks: number of tasks by source.
        digest: SHA-256 of the lines ``source digest`` of all sources; empty if the digest of one is unknown.
        digests: SHA-256 of the names of a source's tasks, one a line, by source.
        records: number of records behind all rows.
        failed: of them, tasks that failed.
        versions: of the packages that made the records, several if rows differ, by package.
        command: that makes the table again, or empty if it was made by a program.
        installed: whether the suite is installed here.
    """

    suite: str
    tasks: Mapping[str, int]
    digest: str
    digests: Mapping[str, str]
    records: int
    failed: int
    versions: Mapping[str, tuple[str, ...]]
    command: str
    installed: bool

    @property
    def n_tasks(self) -> int:
        """Number of tasks of all sources."""
        return sum(self.tasks.values())


def provenance(rows: Sequence[Row], sources: Sequence[str], command: str) -> Provenance:
    """Gather what the rows of one table rest on."""
    first = rows[0].manifest
    expected = {name: row.manifest.expected(name) for row in rows for name in row.manifest.sources}
    digests = {name: digest for row in rows for name, digest in row.manifest.digests.items() if name in expected}
    versions = joined_versions(row.versions for row in rows)
    name = first.suite.partition("@")[0].partition(":")[0]
    return Provenance(
        suite=first.suite,
        tasks={source: expected[source] for source in sources},
        digest=_digest({source: digests.get(source, "") for source in sources}),
        digests={source: digests[source] for source in sources if source in digests},
        records=sum(row.records for row in rows),
        failed=sum(row.failed for row in rows),
        versions={package: tuple(found) for package, found in versions.items()},
        command=command,
        installed=name in SUITES.names(),
    )


def _digest(digests: Mapping[str, str]) -> str:
    if not all(digests.values()):
        return ""
    text = "".join(f"{source} {digest}\n" for source, digest in digests.items())
    return hashlib.sha256(text.encode()).hexdigest()
