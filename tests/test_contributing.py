"""The suite and the plug-in that CONTRIBUTING.md tells people to write work as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
LITE_BENCH = Path(sys.executable).with_name("lite-bench")


def test_the_suite_in_the_text_trains_a_learner(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (command,) = re.findall(r"^lite-bench (train .* --suite colours .*)$", TEXT, flags=re.MULTILINE)
    (tmp_path / "my_package.py").write_text(code)
    info = tmp_path / "colours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lite_bench.suites]\ncolours = my_package:Colours\n")
    done = subprocess.run(
        [
            LITE_BENCH,
            *command.split(),
            "--tasks",
            "4",
            "--output-dir",
            tmp_path / "runs",
        ],  # the last --tasks counts
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/*/*/metrics.jsonl"))


def test_files_and_targets_in_the_text_exist() -> None:
    root = Path(__file__).resolve().parents[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"`((?:tests|harness|examples|\.ci)/[\w./-]*)`", TEXT):
        assert (root / path).exists(), path
