"""Measure every case in a process of its own, so that no case warms or fragments memory for another."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lite_bench.harness.measurement.peak import measure_peak
from lite_bench.harness.measurement.stopwatch import clock
from lite_bench.harness.memory import keep_freed_memory

THREADS = 2


def measure(prepare: Callable[..., Callable[[], Any]], case: dict[str, Any]) -> dict[str, Any]:
    """Run the callable that ``prepare(**case)`` returns, for its time and for its peak memory (`measure_peak`).

    On a GPU a first run loads kernels; on a CPU the first is timed, with freed memory kept as `lite-bench` keeps it.
    """
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    device = torch.device(case["device"])
    work = prepare(**case)
    if device.type == "cuda":
        work()
    start = clock(device)
    work()
    seconds = clock(device) - start
    return {"seconds": seconds, "peak_gb": measure_peak(work, device).tensors / 1e9}


def run_cases(script: str, cases: Sequence[dict[str, Any]], limit_seconds: float = 3600) -> list[dict[str, Any]]:
    """Measure every case of ``script`` (see `main`) in a fresh process, one after the other."""
    results = []
    for case in cases:
        command = [sys.executable, script, "--case", json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_seconds)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
            raise SystemExit(f"{case} ended with exit {done.returncode}: {reason}")
        results.append({**case, **json.loads(done.stdout.splitlines()[-1])})
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    return results


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a Markdown table."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def main(script: str, prepare: Callable[..., Callable[[], Any]], report: Callable[[argparse.Namespace], str],
         add_arguments: Callable[[argparse.ArgumentParser], None]) -> None:  # fmt: skip
    """Be either the parent that prints the report or the child that measures one case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(prepare, json.loads(arguments.case))))
        return
    text = report(arguments)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
