"""The command line. ``main`` is the console script; nothing heavy is imported before a command needs it."""


def main() -> None:
    """Run ``lite-bench``."""
    from lite_bench.harness.cli.app import main as run

    run()
