"""``lite-bench list``: complete, quick, and nothing imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lite_bench.harness.cli.listing import declared_value, describe_target, find_source, list_objects, plugin_rows
from lite_bench.harness.errors import UnknownNameError, UsageError
from lite_bench.harness.registry import LEARNERS, OWN_DISTRIBUTION, REGISTRIES, SUITES, Registry

HEAVY = ("torch", "torchvision", "timm", "numpy", "matplotlib", "scipy", "tensorflow_datasets")


def listed(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(list_objects)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_lists_every_object_with_a_description(registry: Registry) -> None:
    rows = json.loads(listed(registry.kind, "--json"))
    assert [row["name"] for row in rows] == registry.names()
    for row in rows:
        assert row["description"], f"{row['name']} has no docstring that can be read without importing it"
        assert row["version"]


def test_plain_output_is_tab_separated() -> None:
    header, *rows = listed("suites").splitlines()
    assert header == "name\tdescription\tdistribution\tversion"
    assert [row.split("\t")[0] for row in rows] == SUITES.names()


def test_learners_say_whether_they_are_meta_trained_and_how_many_passes_they_take() -> None:
    header = listed("learners").splitlines()[0]
    assert header == "name\tdescription\tmeta-trained\tpasses\tdistribution\tversion"
    for row in json.loads(listed("learners", "--json")):
        if row["distribution"] != OWN_DISTRIBUTION:
            continue
        factory = LEARNERS.load(row["name"])
        assert (row["meta-trained"], row["passes"]) == (factory.meta_trained, factory.passes)
        assert re.fullmatch(r"\d+F(\+\d+FB)?|\d+FB", row["passes"])
        assert len(row["description"]) < 200


def test_a_learner_that_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "silent_learner.py").write_text('class Silent:\n    """Says nothing."""\n\n    passes = str(3)\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert declared_value("silent_learner", "Silent", "passes") is None
    assert declared_value("silent_learner", "Silent", "meta_trained") is None
    assert declared_value("no_such_module", "Silent", "passes") is None


@pytest.mark.parametrize("kind", ["learners", "suites", "backbones"])
def test_listing_imports_nothing_heavy(kind: str) -> None:
    code = (
        "import sys; from lite_bench.harness.cli.listing import list_objects\n"
        f"list_objects({kind!r}, timm=None, json=True)\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_unknown_kind_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean learners"):
        list_objects("lerners")


def test_timm_is_searched_by_part_of_a_name_or_by_pattern() -> None:
    names = [row["name"] for row in json.loads(listed("backbones", "--timm", "resnet18", "--json"))]
    assert "resnet18" in names
    assert json.loads(listed("backbones", "--timm", "efficientnet_b0", "--json"))
    assert listed("backbones", "--timm", "no_such_network*") == "name\tpretrained\n"


def test_timm_belongs_to_backbones() -> None:
    with pytest.raises(UsageError, match="list backbones --timm"):
        list_objects("suites", timm="resnet*")


def test_our_own_objects_are_no_plugins() -> None:
    assert "lite-bench" not in {row["distribution"] for row in plugin_rows()}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose modules raise when they are imported."""
    folder = tmp_path / "explosive"
    folder.mkdir()
    explode = "raise RuntimeError('imported')\n"
    (folder / "__init__.py").write_text(
        f"{explode}from .inner import Thing as Renamed\nfrom explosive.inner import make\n"
    )
    (folder / "inner.py").write_text(
        f'{explode}class Thing:\n    """A `thing`\n    on two lines.\n\n    More."""\n'
        '    @classmethod\n    def build(cls):\n        """Build it."""\n'
        'def make():\n    """Make it."""\ndef silent(): ...\n'
    )
    (folder / "broken.py").write_text("def (")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "explosive"


@pytest.mark.parametrize(
    ("module", "attribute", "description"),
    [
        ("explosive.inner", "Thing", "A thing on two lines."),
        ("explosive.inner", "Thing.build", "Build it."),
        ("explosive", "Renamed", "A thing on two lines."),
        ("explosive", "make", "Make it."),
        ("explosive.inner", "silent", ""),
        ("explosive.inner", "absent", ""),
        ("explosive.broken", "Thing", ""),
        ("explosive.absent", "Thing", ""),
        ("absent_altogether", "Thing", ""),
    ],
)
def test_descriptions_are_read_not_run(package: str, module: str, attribute: str, description: str) -> None:
    assert describe_target(module, attribute) == description
    assert package not in sys.modules


def test_sources_are_found_through_editable_installs_too() -> None:
    path = find_source("lite_bench.harness.registry")
    assert path is not None
    assert path.name == "registry.py"
    assert find_source("sys") is None
