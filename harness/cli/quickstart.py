"""``lite-bench quickstart``: the main job from end to end, on the embedded suite."""

from __future__ import annotations

import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_bench.harness.cli.evaluate import run_evaluation
from lite_bench.harness.cli.output import say
from lite_bench.harness.cli.results import write_leaderboard
from lite_bench.harness.cli.train import start_training
from lite_bench.harness.errors import RunError

if TYPE_CHECKING:
    from lite_bench.harness.runs import RunFolder

RECIPE = Path(__file__).with_name("quickstart.toml")

NEXT_STEPS = """\
Next:
  lite-bench list learners                      what there is to train
  lite-bench train protonets --suite folder:DIR your own images: one folder of pictures per class
  lite-bench train simple_cnaps --image-size 224
  lite-bench info simple_cnaps                  parameters, FiLM sites, MACs
  lite-bench doctor                             which benchmarks' data this machine has"""


@dataclass(frozen=True)
class Gain:
    """What meta-training brought on the same tasks, in percent with the half width of its 95 % interval.

    ``failed`` tasks, in either run, are in none of the figures.
    """

    learner: str
    before: float
    after: float
    gain: float
    half_width: float
    failed: int = 0


def quickstart(
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Where to put the runs (default: quickstart/<time>).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    quick: Annotated[
        bool, typer.Option("--smoke", help="A tenth of the work: only shows that everything runs.")
    ] = False,
) -> None:
    """Train two learners with LITE on written characters; evaluate them and five baselines on scripts never seen.

    Takes about five minutes on two CPU cores and needs no download.

    Example: `lite-bench quickstart`
    """
    started = time.monotonic()
    folder = output_dir or Path("quickstart") / time.strftime("%Y%m%d-%H%M%S")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty; choose another --output-dir.")
    recipe = load_recipe(seed, quick)
    gains: list[Gain] = []
    runs: dict[str, RunFolder] = {}
    stages = len(recipe["train"]) + 1
    for position, entry in enumerate(recipe["train"], start=1):
        name = entry["learner"]
        say(f"[{position}/{stages}] {name}: evaluating untrained, training with LITE, evaluating again")
        settings = with_weights(entry, runs)
        before = _evaluate(name, settings, recipe["limit"], folder, "untrained")
        runs[name] = _train(settings, folder)
        run_evaluation(None, runs[name].path, {"limit": recipe["limit"]}, None, folder)
        gains.append(compare(name, before, runs[name]))
    say(f"[{stages}/{stages}] baselines, on the backbone trained above")
    for entry in recipe["baseline"]:
        _evaluate(entry["learner"], with_weights(entry, runs), recipe["limit"], folder, "baseline")
    board = write_leaderboard(folder, [folder])
    typer.echo(board.read_text(encoding="utf-8"))
    for gain in gains:
        typer.echo(describe(gain))
    say(f"\nRuns and leaderboard: {folder}  ({(time.monotonic() - started) / 60:.1f} minutes)\n{NEXT_STEPS}")


def load_recipe(seed: int, quick: bool) -> dict[str, Any]:
    """Read the recipe; every entry is laid over the shared settings."""
    recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    for kind in ("train", "baseline"):
        recipe[kind] = [{**recipe["shared"], "seed": seed, **entry} for entry in recipe[kind]]
    if quick:
        recipe["limit"] = max(1, recipe["limit"] // 10)
        for entry in recipe["train"]:
            entry["tasks"] = max(1, entry["tasks"] // 10)
    return recipe


def with_weights(entry: dict[str, Any], runs: dict[str, RunFolder]) -> dict[str, Any]:
    """Replace ``weights_from``, the name of a learner trained before, by its checkpoint."""
    settings = {key: value for key, value in entry.items() if key != "weights_from"}
    if "weights_from" in entry:
        settings["weights"] = runs[entry["weights_from"]].chosen_checkpoint()
        settings["pretrained"] = None
    return settings


def _train(settings: dict[str, Any], folder: Path) -> RunFolder:
    from lite_bench.harness.settings import validate

    return start_training(validate(settings), folder, "trained")


def _evaluate(name: str, settings: dict[str, Any], limit: int, folder: Path, run_name: str) -> RunFolder:
    given = {key: value for key, value in settings.items() if key != "learner"}
    run, _ = run_evaluation(name, None, {**given, "limit": limit}, None, folder, run_name)
    return run


def compare(learner: str, before: RunFolder, after: RunFolder) -> Gain:
    """Compare two runs on the tasks they share; the interval is that of the mean difference."""
    from lite_bench.harness.records import read_results
    from lite_bench.harness.statistics import estimate

    accuracies, failed = [], set[str]()
    for run in (before, after):
        (results,) = read_results(run.path)
        listed = [r for records in results.records.values() for r in records]
        failed |= {r.task for r in listed if r.failed}
        accuracies.append({r.task: r.accuracy for r in listed if r.accuracy is not None})
    shared = sorted(accuracies[0].keys() & accuracies[1].keys())
    first, second = ([100 * each[task] for task in shared] for each in accuracies)
    difference = estimate([b - a for a, b in zip(first, second, strict=True)])
    means = estimate(first).mean, estimate(second).mean
    return Gain(learner, *means, difference.mean, difference.half_width or 0.0, len(failed))


def describe(gain: Gain) -> str:
    """Say what meta-training brought, in one line."""
    return (
        f"{gain.learner}: {gain.before:.1f} % untrained, {gain.after:.1f} % trained with LITE: "
        f"{gain.gain:+.1f} ± {gain.half_width:.1f} points on the same tasks"
        + f" ({gain.failed} tasks that failed are left out)"
        * bool(gain.failed)
    )
