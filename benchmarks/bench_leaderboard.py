"""A leaderboard of many records: each form as its own process, beside parsing the same lines as JSON and nothing else.

Rows are learners on a suite of 26 sources in groups, 600 tasks in each of 8 and one in each of 18, as in VTAB+MD. Time
is of the whole command, Python's start included; memory is the most that the process had at once.

    python benchmarks/bench_leaderboard.py [--records 100000 1000000] [--forms json markdown html]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from isolated import table

from lite_bench.harness.core import Cost, Record
from lite_bench.harness.records import Manifest, records_path, results_folder, write_manifest

EPISODES, SINGLE = 8, 18
TASKS = 600
PEAK = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)"
PARSE = f"""
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.jsonl"):
    for line in path.open():
        json.loads(line)
{PEAK}
"""
LEADERBOARD = f"""
import sys
from lite_bench.harness.cli import main
try:
    main()
finally:
    {PEAK}
"""


def write_row(folder: Path, number: int) -> int:
    """Write one learner's evaluation; gives its number of records."""
    sources = {f"episodes-{i}": TASKS for i in range(EPISODES)} | {f"test-set-{i}": 1 for i in range(SINGLE)}
    names = list(sources)
    groups = {"MD": names[:EPISODES], "VTAB": names[EPISODES:], "natural": names[EPISODES : EPISODES + 6]}
    manifest = Manifest(
        "wide@1", "test", 0, sources, groups, f"learner-{number}", "resnet18", 224, f"{number:064x}", "d" * 64
    )
    run = folder / f"learner-{number}" / "run"
    write_manifest(results_folder(run, manifest.suite), manifest)
    draw = random.Random(number)
    cost = Cost("1F", 10**12, 10**9, 10**12, (), 11_000_000, 11_000_000, 5120, 10**9, "a GPU")
    for source, n in sources.items():
        lines = []
        for index in range(n):
            task = f"{manifest.suite}/{source}/test/{index}"
            accuracy = min(1.0, max(0.0, draw.gauss(0.6, 0.1)))
            times = (draw.uniform(0.1, 0.2), draw.uniform(0.5, 0.6))
            about = (manifest.suite, source, manifest.learner, manifest.backbone, 224, accuracy, 20, 400, 200, *times)
            record = Record(task, *about, manifest.checkpoint, manifest.data, "0.1.0", cost=cost)
            lines.append(json.dumps(asdict(record)))
        records_path(run, manifest.suite, source).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sum(sources.values())


def run(code: str, *arguments: str) -> tuple[float, float]:
    """Run Python code in a process; gives its seconds and the most memory that it had, in MB."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return time.perf_counter() - start, int(done.stderr.split()[-1]) / 1000


def main() -> None:
    """Measure every form at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--forms", nargs="+", default=["json", "markdown", "html"])
    asked = parser.parse_args()
    lines: list[list[object]] = []
    for wanted in asked.records:
        with tempfile.TemporaryDirectory() as name:
            folder, n, number = Path(name), 0, 0
            while n < wanted:
                n += write_row(folder, number)
                number += 1
            plain, memory = run(PARSE, name)
            lines.append([f"{n:,}", number, "parsing alone", f"{plain:.1f}", "1.0", f"{memory:.0f}"])
            for form in asked.forms:
                seconds, memory = run(LEADERBOARD, "leaderboard", name, "--format", form)
                lines.append([f"{n:,}", number, form, f"{seconds:.1f}", f"{seconds / plain:.1f}", f"{memory:.0f}"])
    print(table(["records", "rows", "form", "seconds", "times parsing", "peak MB"], lines))


if __name__ == "__main__":
    main()
