"""``lite-bench data``: where benchmarks' data is, and how to get it, check it and imitate it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import Progressor, print_json, print_table, say
from lite_bench.harness.data import DataKeeper, SourceStatus
from lite_bench.harness.errors import RunError, UnknownNameError
from lite_bench.harness.registry import DATA

SuiteArgument = Annotated[
    str | None, typer.Argument(help="Benchmark, such as those of `lite-bench data status`; by default all.")
]
SourceFlag = Annotated[list[str] | None, typer.Option("--source", help="Only this source; repeatable.")]
WorkersFlag = Annotated[int, typer.Option("--workers", min=1, help="Processes or threads (default: the cores).")]
DataOutputFlag = Annotated[
    Path,
    typer.Option("--output-dir", "-o", help="Folder that holds all of a benchmark's data; later your --data-dir."),
]
CORES = os.cpu_count() or 1

data = typer.Typer(
    name="data",
    help="Find, convert, check and imitate the data of benchmarks.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


def keepers(suite: str | None) -> Iterator[tuple[str, DataKeeper]]:
    """Load the keeper of ``suite`` (a name, with or without a version), or of all.

    Raises:
        UnknownNameError: the suite has none.
    """
    names = DATA.names() if suite is None else [suite.partition("@")[0]]
    for name in names:
        yield name, DATA.load(name)()


@data.command("status")
def status(suite: SuiteArgument = None, data_dir: flags.DataDirFlag = None, json: flags.JsonFlag = False) -> None:
    """Say for every source of a benchmark whether its data is there, where, and what to do next if not.

    Example: `lite-bench data status`
    """
    found = {name: keeper.status(data_dir) for name, keeper in keepers(suite)}
    if json:
        print_json({name: [_plain(each) for each in sources] for name, sources in found.items()})
        return
    for name, sources in found.items():
        rows = [[each.source, ", ".join(each.used_for), each.state, _detail(each)] for each in sources]
        print_table(["source", "used for", "state", "where, or what to do"], rows, title=name)
        there = sum(each.state in ("found", "stand-in") for each in sources)
        looked = dict.fromkeys(str(place) for each in sources for place in each.looked)
        say(f"{name}: {there} of {len(sources)} sources found. Looked in: {', '.join(looked) or 'no place'}.")


def _detail(status: SourceStatus) -> str:
    return " ".join(filter(None, [str(status.where or ""), status.problem, status.next_step]))


def _plain(status: SourceStatus) -> dict[str, Any]:
    return {
        "source": status.source,
        "used_for": list(status.used_for),
        "state": status.state,
        "where": status.where and str(status.where),
        "looked": [str(place) for place in status.looked],
        "problem": status.problem,
        "next_step": status.next_step,
    }


@data.command("prepare")
def prepare(
    source: Annotated[str, typer.Argument(help="What to prepare, as `lite-bench data status` names it.")],
    output_dir: DataOutputFlag,
    originals: Annotated[
        Path | None, typer.Option("--from", help="Folder with the original files, packed or unpacked.")
    ] = None,
    workers: WorkersFlag = CORES,
) -> None:
    """Convert the original files of a source into the form that the benchmark reads; a stopped conversion goes on.

    Example: `lite-bench data prepare omniglot --from downloads --output-dir data`
    """
    sources: dict[str, DataKeeper] = {}
    for _, keeper in keepers(None):
        sources |= dict.fromkeys(keeper.preparable(), keeper)
    if source not in sources:
        raise UnknownNameError("source to prepare called", source, sources)
    with Progressor(f"preparing {source}") as progress:
        done = sources[source].prepare(source, originals, output_dir, workers=workers, notify=progress.update)
    say(done)


@data.command("verify")
def verify(
    suite: SuiteArgument = None,
    source: SourceFlag = None,
    data_dir: flags.DataDirFlag = None,
    decode: Annotated[bool, typer.Option("--decode/--no-decode", help="Decode every image too.")] = True,
    workers: WorkersFlag = CORES,
    json: flags.JsonFlag = False,
) -> None:
    """Check data completely: counts against what is published, checksums, and that every image decodes.

    Exits with 1 if anything is wrong.

    Example: `lite-bench data verify --source omniglot --data-dir data`
    """
    problems: dict[str, list[str]] = {}
    with Progressor("verifying") as progress:
        for _, keeper in keepers(suite):
            asked = _known(source, keeper, data_dir)
            if asked or not source:
                problems |= keeper.verify(asked, data_dir, decode=decode, workers=workers, notify=progress.update)
    _refuse_undone(source, problems, "check")
    if json:
        print_json(problems)
    else:
        print_table(
            ["source", "state"], [[name, "ok" if not p else f"{len(p)} problems"] for name, p in problems.items()]
        )
    for lines in problems.values():
        for line in lines:
            say(f"Problem: {line}")
    if any(problems.values()):
        raise typer.Exit(1)


def _known(asked: list[str] | None, keeper: DataKeeper, data_dir: Path | None) -> list[str]:
    """List those of ``asked`` that ``keeper`` has."""
    own = {each.source for each in keeper.status(data_dir)} if asked else set()
    return [name for name in asked or [] if name in own]


def _refuse_undone(asked: list[str] | None, done: Collection[str], verb: str) -> None:
    """Refuse to end well when nothing, or not what was asked for, was there to ``verb``.

    Raises:
        UnknownNameError: a source that was asked for is none.
        RunError: nothing was found, or a source that was asked for has nothing to ``verb``.
    """
    known = {each.source for _, keeper in keepers(None) for each in keeper.status(None)}
    for name in asked or []:
        if name not in done and name not in known:
            raise UnknownNameError("source called", name, known)
        if name not in done:
            raise RunError(f"{name} has nothing to {verb}; `lite-bench data status` says whether it is there.")
    if not done:
        raise RunError(f"No data was found to {verb}; `lite-bench data status` says where it was looked for.")


@data.command("index")
def index(suite: SuiteArgument = None, source: SourceFlag = None, data_dir: flags.DataDirFlag = None) -> None:
    """Build the indexes of record files ahead of their first use; they are kept and checked against the files.

    Example: `lite-bench data index --data-dir data`
    """
    rows = []
    with Progressor("indexing") as progress:
        for _, keeper in keepers(suite):
            asked = _known(source, keeper, data_dir)
            if asked or not source:
                rows += keeper.index(asked, data_dir, notify=progress.update)
    _refuse_undone(source, [each.source for each in rows], "index")
    print_table(["source", "files", "records"], [[each.source, str(each.files), str(each.records)] for each in rows])


@data.command("synth")
def synth(
    suite: Annotated[str, typer.Argument(help="Benchmark to imitate.")],
    output_dir: DataOutputFlag,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the images.")] = 0,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=8, help="Side of the images, for a benchmark of several sizes.")
    ] = None,
    workers: WorkersFlag = CORES,
) -> None:
    """Write small stand-ins of a benchmark's data in exactly its own on-disk form, to try everything offline.

    They are marked as such, and so are all results on them.

    Example: `lite-bench data synth vtab_md --output-dir standin`
    """
    ((name, keeper),) = keepers(suite)
    with Progressor("writing stand-ins") as progress:
        used_by = keeper.synthesise(
            output_dir, seed=seed, workers=workers, notify=progress.update, image_size=image_size
        )
    say(f"Stand-ins of {name}: {output_dir}\nNext: lite-bench eval protonets --suite {name} {used_by}")
