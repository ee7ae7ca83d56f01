"""The command line: what goes where, what it ends with, and that each mistake gets one sentence."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from lite_bench.harness.cli.app import build_app
from lite_bench.harness.cli.evaluate import on_suite
from lite_bench.harness.core import Record
from lite_bench.harness.records import append_record, read_results
from lite_bench.harness.runs import RunFolder
from tests.harness.small import FLAGS, Shell, timeless, trained
from tests.harness.small import small_settings as settings

COMMANDS = ["train", "eval", "list", "info", "doctor", "quickstart", "leaderboard"]
HEAVY = ("torch", "torchvision", "timm", "numpy", "matplotlib", "scipy", "tensorflow_datasets", "safetensors")
SHORT = ["--tasks", "2", "--tasks-per-step", "2", "--validate-every", "0"]


def test_every_command_has_help_with_an_example() -> None:
    listed = CliRunner().invoke(build_app(), ["--help"]).stdout
    for command in COMMANDS:
        assert f" {command} " in listed
        result = CliRunner().invoke(build_app(), [command, "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0
        assert f"Example: lite-bench {command}" in result.stdout.replace("`", "")


def test_help_and_list_import_nothing_heavy() -> None:
    """What makes a command line slow to answer is what it imports."""
    calls = [["--help"], ["--version"], ["list", "learners"], *([command, "--help"] for command in COMMANDS)]
    code = f"""
import sys
from lite_bench.harness.cli import main
for arguments in {calls!r}:
    sys.argv = ["lite-bench", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "protonets" in done.stdout


def test_train_evaluate_and_rank(shell: Shell) -> None:
    out, err = shell("train", "protonets", *FLAGS, *SHORT, "--run-name", "first")
    run = RunFolder(Path("runs/protonets-conv4-28/first"))
    assert out == ""
    assert f"Next: lite-bench eval --checkpoint {run.path}" in err
    assert "tasks/s" in err
    assert "images/s" in err
    assert "waiting for data" in err

    out, err = shell("eval", "--limit", "2", "--json")
    found = json.loads(out)
    assert found["run"] == str(run.path)
    assert found["partial"] is True
    assert {source["done"] for source in found["sources"].values()} == {2}
    assert f"Using the weights of {run.checkpoint('last')}" in err
    assert (run.path / "leaderboard.md").read_text().startswith("## glyphs@1")
    assert run.status()["status"] == "finished"

    shell("eval", "finetuner", *FLAGS, "--limit", "2", "--run-name", "baseline")
    out, err = shell("leaderboard", "--json")
    rows = json.loads(out)["tables"][0]["rows"]
    assert {row["learner"] for row in rows} == {"protonets", "finetuner"}
    assert err == ""


def test_the_table_of_an_evaluation_is_plain_when_piped(shell: Shell) -> None:
    out, _ = shell("eval", "protonets", *FLAGS, "--limit", "1")
    scores, costs = (table.splitlines() for table in out.split("\n\n"))
    assert scores[0] == "source\taccuracy (95 % interval)\ttasks\ttask list"
    assert scores[-1].startswith("mean: unseen scripts\t")
    assert costs[0] == "cost\tof a task"
    assert costs[1] == "passes over the support set\t1F"


def test_an_untrained_learner_is_evaluated_as_it_is(shell: Shell) -> None:
    out, err = shell("eval", "protonets", *FLAGS, "--limit", "1", "--json", "--run-name", "raw")
    assert "evaluated as it is, without meta-training" in err
    assert json.loads(out)["run"] == "runs/protonets-conv4-28/raw"
    run = RunFolder(Path("runs/protonets-conv4-28/raw"))
    assert {"train", "validation", "test"} == set(json.loads((run.path / "splits.json").read_text()))
    (results,) = read_results(run.path)
    assert results.manifest.checkpoint == "untrained"
    assert (run.status()["kind"], run.status()["status"]) == ("eval", "finished")
    message = shell.fails("eval", "protonets", *FLAGS, "--run-name", "raw", code=1)
    assert "lite-bench eval --checkpoint runs/protonets-conv4-28/raw" in message


def test_an_interrupted_evaluation_goes_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--limit", "2", "--run-name", "cut"]
    made: list[Record] = []

    def interrupting(path: Path, record: Record) -> None:
        append_record(path, record)
        made.append(record)
        if len(made) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("lite_bench.harness.evaluation.append_record", interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's own processes ignore Ctrl-C
    message = shell.fails("eval", "protonets", *FLAGS, *flags, code=130)
    signal.signal(signal.SIGINT, before)
    run = RunFolder(Path("runs/protonets-conv4-28/cut"))
    assert f"--checkpoint {run.path}" in message
    assert run.status()["status"] == "interrupted"
    shell("eval", "--checkpoint", run.path)
    assert len(made) == 6
    assert len({record.task for record in made}) == 6
    assert run.status()["status"] == "finished"
    assert "not of cnaps" in shell.fails("eval", "cnaps", "--checkpoint", run.path)
    assert "is an evaluation" in shell.fails("train", "--resume", run.path, code=1)


def test_the_suites_options_of_a_run_are_kept_and_may_be_changed(shell: Shell) -> None:
    run = trained(settings(tasks=2), Path("runs"))
    flags = ["--checkpoint", str(run.path), "--limit", "1"]
    shell("eval", *flags)
    shell("eval", *flags, "--way", "4")
    suites = [results.manifest.suite for results in read_results(run.path)]
    assert suites == ["glyphs@1+query=2+shot=2+way=3", "glyphs@1+query=2+shot=2+way=4"]


def test_a_batch_size_given_to_an_evaluation_holds_for_its_queries_too() -> None:
    own = settings(batch_size=4, query_batch_size=32)
    assert on_suite(own, {}).query_batch == 32
    assert on_suite(own, {"batch_size": 8}).query_batch == 8


def test_results_of_another_checkpoint_need_a_word(shell: Shell) -> None:
    run = trained(settings(tasks=2), Path("runs"))
    shell("eval", "--limit", "1")
    file = run.checkpoint("last")
    run.config.write_text(run.config.read_text().replace("tasks = 2", "tasks = 4"))
    run.set_status("running")
    shell("train", "--resume", run.path)
    message = shell.fails("eval", "--checkpoint", file, "--limit", "1", code=1)
    assert "another checkpoint" in message
    assert "--overwrite" in message
    shell("eval", "--checkpoint", file, "--limit", "1", "--overwrite")


def test_a_config_may_name_the_learner(shell: Shell) -> None:
    run = trained(settings(tasks=2), Path("elsewhere"))
    shell("train", "--config", run.config, "--run-name", "again")
    again = RunFolder(Path("runs/protonets-conv4-28/again"))
    assert again.settings() == run.settings().changed(pixel_range="backbone")
    assert again.checkpoint("last").read_bytes() == run.checkpoint("last").read_bytes()
    out, _ = shell("eval", "--config", run.config, "--limit", "1", "--json")
    assert json.loads(out)["sources"]
    shell("train", "cnaps", "--config", run.config, "--image-size", "32", "--run-name", "other")
    assert RunFolder(Path("runs/cnaps-conv4-32/other")).settings().learner == "cnaps"


def test_options_of_a_learner_reach_it_and_survive(shell: Shell) -> None:
    flags = [*FLAGS, *SHORT, "-P", "batch_statistics=true", "-P", "learn-scale=true", "--gradient", "full"]
    shell("train", "protonets", *flags, "--run-name", "first")
    run = RunFolder(Path("runs/protonets-conv4-28/first"))
    shell("train", "--config", run.config, "--run-name", "second")
    second = RunFolder(Path("runs/protonets-conv4-28/second"))
    assert second.settings() == run.settings()
    assert second.checkpoint("last").read_bytes() == run.checkpoint("last").read_bytes()
    shell("eval", "--checkpoint", second.path, "--limit", "1")


def test_a_finished_run_is_not_trained_again(shell: Shell) -> None:
    run = trained(settings(tasks=2), Path("runs"))
    before = run.metrics.read_bytes()
    out, err = shell("train", "--resume", run.path)
    assert out == ""
    assert f"is finished; evaluate it with: lite-bench eval --checkpoint {run.path}" in err
    assert run.metrics.read_bytes() == before


def test_a_run_may_be_resumed_on_another_machine_only(shell: Shell) -> None:
    run = trained(settings(tasks=2), Path("runs"))
    run.set_status("interrupted")
    shell("train", "--resume", run.path, "--device", "cpu", "--workers", "2")
    for flag in (["--lr", "1"], ["--limit", "1"], ["--config", run.config], ["--run-name", "x"], ["--way", "2"]):
        assert "--resume keeps the run's own settings" in shell.fails("train", "--resume", run.path, *flag)


def test_limit_is_a_quick_look(shell: Shell) -> None:
    shell("train", "protonets", *FLAGS, "--tasks", "50", "--limit", "1", "--validate-every", "0", "--run-name", "look")
    assert [line["tasks"] for line in timeless(RunFolder(Path("runs/protonets-conv4-28/look")))] == [1]


def test_a_suite_is_chosen_and_the_choice_explained(shell: Shell) -> None:
    flags = [flag for flag in FLAGS if flag not in ("--suite", "glyphs")]
    _, err = shell("train", "protonets", *flags, *SHORT)
    assert "Suite: glyphs, because no benchmark's data is configured" in err


MISTAKES: list[tuple[list[str], int, str]] = [
    (["train"], 2, "No learner is named"),
    (["train", "protonet", *FLAGS], 2, "There is no learner 'protonet'. Did you mean protonets"),
    (["train", "protonets", *FLAGS[2:], "--suite", "glyph"], 2, "Did you mean glyphs?"),
    (["train", "protonets", *FLAGS[:4], "--backbone", "conv5"], 2, "There is no backbone 'conv5'"),
    (["train", "protonets", *FLAGS, "-P", "metrik=x"], 2, "Did you mean metric?"),
    (["train", "protonets", *FLAGS, "-P", "metric"], 2, "key=value"),
    (["train", "protonets", *FLAGS, "-S", "wey=3"], 2, "Did you mean way"),
    (["train", "protonets", *FLAGS, "--gradient", "lit"], 2, "Did you mean lite"),
    (["train", "protonets", *FLAGS, "--lr", "-1"], 2, "--lr -1.0 is not usable"),
    (["train", "protonets", *FLAGS[:-6], "--way", "999"], 1, "999"),
    (["train", "finetuner", *FLAGS], 2, "Evaluate it directly: lite-bench eval finetuner"),
    (["train", "protonets", *FLAGS, "-P", "batch_statistics=true"], 2, "use --gradient full"),
    (["train", "protonets", *FLAGS, "--weights", "absent.pth"], 1, "There is no weights file absent.pth"),
    (["train", "protonets", *FLAGS, "--config", "absent.toml"], 2, "--config absent.toml cannot be read"),
    (["train", "protonets", *FLAGS, "--output-dir", "file"], 1, "choose another --output-dir"),
    (["train", "--resume", "absent"], 1, "There is no run folder absent"),
    (["train", "protonets", *FLAGS[:4], "--backbone", "resnet18"], 1, "--no-pretrained"),
    (["train", "protonets", "--pretrained", *FLAGS[:6]], 1, "conv4 has no published weights; use --no-pretrained"),
    (["train", "protonets", *FLAGS, "--lite-h", "few"], 2, "--lite-h few is not usable"),
    (["train", "protonets", *FLAGS, "--lite-h", "-1"], 2, "--lite-h -1 is not usable"),
    (["train", "protonets", *FLAGS, "--lite-h", "auto"], 2, "--lite-h auto is settled by measuring"),
    (["train", "protonets", *FLAGS, "--memory-budget", "16"], 2, "--memory-budget '16' is not usable"),
    (["train", "protonets", *FLAGS, "--memory-budget", "16XB"], 2, "--memory-budget '16XB' is not usable"),
    (["train", "fomaml", *FLAGS, "-P", "sum_batches=true", "--memory-budget", "1GB"], 2, "results depend on them"),
    (["train", "protonets", *FLAGS, "--memory-budget", "1MB"], 2, "--memory-budget 1MB is too little"),
    (["train", "protonets", *FLAGS, "--memory-budget", "1GB", "--batch-size", "4"], 2, "chooses --batch-size"),
    (["gradients", "protonet", *FLAGS[:-2]], 2, "Did you mean protonets"),
    (["gradients"], 2, "No learner is named"),
    (["gradients", "protonets", *FLAGS[:-2], "--gradient", "lit"], 2, "Did you mean lite"),
    (["gradients", "protonets", *FLAGS[:-2], "--gradient", ","], 2, "--gradient is empty"),
    (["gradients", "protonets", *FLAGS[:-2], "--h", "1,x"], 2, "--h '1,x' is not usable"),
    (["gradients", "protonets", *FLAGS[:-2], "--h", "-1"], 2, "--h '-1' is not usable"),
    (["gradients", "protonets", *FLAGS[:-2], "--precision", "fp16"], 2, "--precision 'fp16' is not usable"),
    (["gradients", "finetuner", *FLAGS[:-2]], 2, "nothing to meta-train"),
    (["gradients", "protonets", *FLAGS[:-2], "-P", "batch_statistics=true"], 2, "use --gradient full"),
    (["gradients", "--checkpoint", "absent"], 1, "There is no run folder absent"),
    (["profile", "protonet"], 2, "Did you mean protonets"),
    (["profile", "protonets", *FLAGS[2:6], "--support", "1"], 2, "--support '1' is not usable"),
    (["profile", "protonets", *FLAGS[2:6], "--gradient", "exakt"], 2, "Did you mean exact?"),
    (["profile", "finetuner", *FLAGS[2:6]], 2, "nothing to meta-train"),
    (["profile", "protonets", *FLAGS[2:6], "-P", "batch_statistics=true"], 2, "use --gradient full"),
    (["eval"], 1, "There is no finished training run under runs"),
    (["eval", "--run-name", "x"], 2, "--run-name"),
    (["eval", "--checkpoint", "absent"], 1, "There is no run folder absent"),
    (["list", "lerners"], 2, "Did you mean learners?"),
    (["info", "protonet"], 2, "Did you mean protonets"),
    (["leaderboard", "absent"], 1, "There is no folder absent"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    MISTAKES,
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence(arguments: list[str], code: int, message: str, shell: Shell) -> None:
    Path("file").write_text("")
    assert message in shell.fails(*arguments, code=code)
    assert not Path("runs").exists()


@pytest.mark.parametrize("arguments", [["train", "--lerning-rate", "1"], ["eval", "--limit", "many"], ["tain"]])
def test_a_flag_that_does_not_exist(arguments: list[str], shell: Shell) -> None:
    out, err = shell(*arguments, code=2)
    assert out == ""
    assert "Usage: lite-bench" in err


def test_debug_shows_the_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITE_BENCH_DEBUG", "")  # put back afterwards
    out, err = shell("--debug", "info", "protonet", code=2)
    assert out == ""
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("Error: There is no learner")


def test_what_a_checkpoint_fixes_cannot_be_changed(shell: Shell) -> None:
    run = trained(settings(tasks=2), Path("runs"))
    for flag in (["--backbone", "conv4"], ["--no-pretrained"], ["--image-size", "28"], ["-P", "metric=cosine"]):
        message = shell.fails("eval", "--checkpoint", run.path, *flag)
        assert f"is fixed by the run {run.path}; leave it out" in message
    message = shell.fails("eval", "cnaps", "--checkpoint", run.path, code=1)
    assert "is a checkpoint of protonets, not of cnaps" in message
    run.checkpoint("last").write_bytes(b"\0" * 40)
    assert "is damaged" in shell.fails("eval", code=1)


TOTALS = {
    ("protonets", "resnet18_84"): 11_171_904,
    ("protonets", "resnet18"): 11_176_512,
    ("protonets", "efficientnet_b0"): 4_007_548,
    ("simple_cnaps", "resnet18_84"): 11_966_144,
    ("simple_cnaps", "resnet18"): 11_970_752,
    ("simple_cnaps", "efficientnet_b0"): 5_667_964,
    ("cnaps", "resnet18_84"): 12_754_629,
    ("cnaps", "resnet18"): 12_759_237,
    ("cnaps", "efficientnet_b0"): 10_588_289,
}


@pytest.mark.parametrize(("learner", "backbone"), TOTALS)
def test_info_prints_the_published_totals(learner: str, backbone: str, shell: Shell) -> None:
    out, err = shell("info", learner, "--backbone", backbone, "--image-size", "64", "--json")
    found: dict[str, Any] = json.loads(out)
    assert found["parameters"] == TOTALS[learner, backbone] == sum(part["parameters"] for part in found["parts"])
    assert len(found["film_sites"]) == (0 if learner == "protonets" else {"e": 18, "r": 16}[backbone[0]])
    assert all(count["macs"] > 0 for count in found["macs_per_image"])
    assert err == ""


def test_info_says_what_is_trained(shell: Shell) -> None:
    out, _ = shell("info", "simple_cnaps", "--backbone", "efficientnet_b0", "--image-size", "64")
    assert "total\t5,667,964\t1,660,416" in out
    assert "FiLM: 18 sites, 10,272 channels" in out


def test_plain_output_ends_quietly_when_its_reader_stops() -> None:
    command = f"{Path(sys.executable).with_name('lite-bench')} list estimators | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "name\tdescription\tdistribution\tversion\n"
    assert "Traceback" not in done.stderr


def test_a_corrupt_image_is_named_and_stops_the_run(shell: Shell) -> None:
    for number in range(12):
        for item in range(4):
            path = Path(f"photos/class{number:02}/{item}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 30), (20 * number, 60 * item, 0)).save(path)
            if item == 3:
                path.write_bytes(path.read_bytes()[:50])
    flags = ["--suite", "folder:photos", *FLAGS[2:], "--tasks", "9", "--validate-every", "0", "--run-name", "run"]
    message = shell.fails("train", "protonets", *flags, code=1)
    assert re.search(r"photos/class\d\d/3\.png", message)
    assert "skip_bad_images" in message
    assert RunFolder(Path("runs/protonets-conv4-28/run")).status()["status"] == "failed"
