"""Learners, suites, backbones, estimators, reproductions and commands, found by entry-point name and loaded on demand.

Ours are registered exactly like a plug-in's. Listing imports nothing; a plug-in that fails to load is an
error only for the command that asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lite_bench.harness.errors import PluginError, UnknownNameError

OWN_DISTRIBUTION = "lite-bench"


def distribution_of(entry: EntryPoint) -> tuple[str, str]:
    """Give name and version of the distribution that registered ``entry``."""
    return (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "?")


@dataclass(frozen=True)
class Registry:
    """All objects of one kind.

    Attributes:
        kind: plural noun, the last part of the entry-point group ``lite_bench.<kind>``.
        noun: singular noun for messages.
    """

    kind: str
    noun: str

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"lite_bench.{self.kind}"

    def entries(self) -> list[EntryPoint]:
        """List the registered entry points, ours first, then by name, without importing any."""
        found = {
            (entry.name, entry.value, distribution_of(entry)[0]): entry for entry in entry_points(group=self.group)
        }
        return sorted(found.values(), key=lambda e: (distribution_of(e)[0] != OWN_DISTRIBUTION, e.name))

    def names(self) -> list[str]:
        """List the registered names."""
        return [entry.name for entry in self.entries()]

    def find(self, name: str) -> EntryPoint:
        """Find the one entry point called ``name``.

        Raises:
            UnknownNameError: there is none.
            PluginError: two distributions registered the same name.
        """
        found = [entry for entry in self.entries() if entry.name == name]
        if not found:
            raise UnknownNameError(self.noun, name, self.names())
        if len(found) > 1:
            owners = " and ".join(distribution_of(entry)[0] for entry in found)
            raise PluginError(f"{self.noun.capitalize()} {name!r} is registered by {owners}; uninstall one of them.")
        return found[0]

    def load(self, name: str) -> Any:
        """Import and return the object called ``name``.

        Raises:
            UnknownNameError: there is none.
            PluginError: importing it fails.
        """
        return load_entry(self.find(name), self.noun)


def load_entry(entry: EntryPoint, noun: str) -> Any:
    """Import what ``entry`` points to, or explain which distribution is at fault."""
    try:
        return entry.load()
    except Exception as error:
        owner, version = distribution_of(entry)
        raise PluginError(
            f"{noun.capitalize()} {entry.name!r} of {owner} {version} cannot be imported from {entry.value!r}: "
            f"{type(error).__name__}: {error}. Repair or uninstall {owner}; see `lite-bench list plugins`."
        ) from error


LEARNERS = Registry("learners", "learner")
SUITES = Registry("suites", "suite")
BACKBONES = Registry("backbones", "backbone")
ESTIMATORS = Registry("estimators", "gradient estimator")
COMMANDS = Registry("commands", "command")
DATA = Registry("data", "data keeper")
"""What looks after the data of a suite, by the suite's name; see `lite_bench.harness.data`."""
REPRODUCTIONS = Registry("reproductions", "reproduction")
"""Published tables that can be computed again; see `lite_bench.harness.reproduction`."""

REGISTRIES = (LEARNERS, SUITES, BACKBONES, ESTIMATORS, DATA, REPRODUCTIONS, COMMANDS)
