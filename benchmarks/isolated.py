"""Measure one case in processes of its own: wall time, and peak memory above what was there before.

Time is taken with freed memory kept, as `lite-bench` keeps it; memory in a second process that returns it at once, so
that the peak counts what is in use and not what the allocator holds in reserve.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lite_bench.harness.memory import M_MMAP_MAX, keep_freed_memory

M_MMAP_THRESHOLD = -3
THREADS = 2


def memory_bytes(field: str) -> int:
    """Read ``VmRSS``, the resident memory of this process, or ``VmHWM``, its peak since the last `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def return_freed_memory() -> None:
    """Have the C library return every large block as soon as it is freed."""
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_MAX, 1 << 30)
    library.mallopt(M_MMAP_THRESHOLD, 1 << 20)


def forget_peak() -> None:
    """Give free memory back to the system and start the peak anew from what is in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measure(prepare: Callable[..., Callable[[], Any]], case: dict[str, Any]) -> dict[str, Any]:
    """Run the callable that ``prepare(**case)`` returns once, for its time or (``case["figure"]``) its peak memory."""
    figure = case.pop("figure")
    torch.set_num_threads(THREADS)
    work = prepare(**case)
    if figure == "seconds":
        keep_freed_memory()
        start = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - start}
    return_freed_memory()
    forget_peak()
    before = memory_bytes("VmRSS")
    work()
    return {"peak_gb": (memory_bytes("VmHWM") - before) / 1e9}


def run_cases(script: str, cases: Sequence[dict[str, Any]], limit_seconds: float = 3600) -> list[dict[str, Any]]:
    """Measure every case of ``script`` (see `main`), each figure in a fresh process, one after the other."""
    results = []
    for case in cases:
        result = dict(case)
        for figure in ("seconds", "peak_gb"):
            command = [sys.executable, script, "--case", json.dumps({**case, "figure": figure})]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_seconds)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
                result = {**case, "failed": f"exit {done.returncode}: {reason}"}
                break
            result |= json.loads(done.stdout.splitlines()[-1])
        results.append(result)
        print(json.dumps(result), file=sys.stderr, flush=True)
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
