"""The ``lite-bench`` command: options shared by all commands, and the one place where errors become messages."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from lite_bench.harness.cli.cost import cost
from lite_bench.harness.cli.data import data
from lite_bench.harness.cli.doctor import doctor
from lite_bench.harness.cli.evaluate import evaluate_command
from lite_bench.harness.cli.gradients import gradients
from lite_bench.harness.cli.info import info
from lite_bench.harness.cli.listing import list_objects
from lite_bench.harness.cli.predictions import predictions
from lite_bench.harness.cli.profile import profile
from lite_bench.harness.cli.quickstart import quickstart
from lite_bench.harness.cli.reproduce import reproduce
from lite_bench.harness.cli.train import train
from lite_bench.harness.errors import LiteBenchError, PluginError
from lite_bench.harness.registry import COMMANDS, distribution_of, load_entry

INTERRUPTED = 130
DEBUG = "LITE_BENCH_DEBUG"

EPILOG = "New here? Run `lite-bench quickstart`, or `lite-bench COMMAND --help` for an example of each command."


def show_version(asked: bool) -> None:
    """Print the version and stop, if asked."""
    if asked:
        typer.echo(f"lite-bench {version('lite-bench')}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """Assemble the application: our commands, then those of the registered rooms and plug-ins."""
    app = typer.Typer(
        name="lite-bench",
        help="Meta-train and compare few-shot image classifiers on large images.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
        shown: Annotated[
            bool,
            typer.Option("--version", help="Print the version and exit.", callback=show_version, is_eager=True),
        ] = False,
    ) -> None:
        del shown
        if debug:
            os.environ[DEBUG] = "1"

    app.command("train")(train)
    app.command("eval")(evaluate_command)
    app.command("gradients")(gradients)
    app.command("profile")(profile)
    app.command("cost")(cost)
    app.command("predictions")(predictions)
    app.command("reproduce")(reproduce)
    app.add_typer(data)
    app.command("list")(list_objects)
    app.command("info")(info)
    app.command("doctor")(doctor)
    app.command("quickstart")(quickstart)
    _add_registered_commands(app)
    return app


def _add_registered_commands(app: typer.Typer) -> None:
    for entry in COMMANDS.entries():
        try:
            app.command(entry.name)(load_entry(entry, COMMANDS.noun))
        except PluginError as error:
            typer.echo(f"Command {entry.name} of {distribution_of(entry)[0]} is left out: {error}", err=True)


# torch's profiler writes to stderr unless told otherwise before torch is imported.
QUIET_PROFILER = ("KINETO_LOG_LEVEL", "99")


def main() -> None:
    """Run the command line; a user's mistake becomes one sentence on stderr and a non-zero exit code."""
    os.environ.setdefault(*QUIET_PROFILER)
    try:
        build_app()()
    except LiteBenchError as error:
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
