"""``lite-bench list``: what is installed, read from metadata and source text without importing it."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.output import print_json, print_table, say
from lite_bench.harness.errors import PluginError, UnknownNameError, UsageError, WeightsError
from lite_bench.harness.registry import LEARNERS, OWN_DISTRIBUTION, REGISTRIES, Registry, distribution_of, load_entry
from lite_bench.harness.units import UNKNOWN

PLUGINS = "plugins"
COLUMNS = ("name", "description", "distribution", "version")
LEARNER_COLUMNS = ("name", "description", "meta-trained", "passes", "distribution", "version")
DECLARED = {"meta-trained": "meta_trained", "passes": "passes"}
"""Columns of learners, and the class attributes that they show."""
PLUGIN_COLUMNS = ("name", "kind", "distribution", "version", "target", "status")


def list_objects(
    kind: Annotated[
        str,
        typer.Argument(help=f"One of {', '.join(registry.kind for registry in REGISTRIES)}, {PLUGINS}."),
    ],
    timm: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="With `backbones`: the timm networks that match, such as '*vit*224*'."),
    ] = None,
    json: flags.JsonFlag = False,
) -> None:
    """List what can be named in other commands, ours and that of plug-ins.

    `list plugins` also loads each object of other distributions and shows what fails.

    Example: `lite-bench list learners`
    """
    registries = {registry.kind: registry for registry in REGISTRIES}
    if kind != PLUGINS and kind not in registries:
        raise UnknownNameError("list of", kind, [*registries, PLUGINS])
    if timm is not None and kind != "backbones":
        raise UsageError(f"--timm selects backbones, not {kind}; write `lite-bench list backbones --timm {timm}`.")
    columns: tuple[str, ...]
    if timm is not None:
        rows, columns = timm_rows(timm), ("name", "pretrained")
    elif kind == PLUGINS:
        rows, columns = plugin_rows(), PLUGIN_COLUMNS
    else:
        rows, columns = object_rows(registries[kind]), LEARNER_COLUMNS if kind == LEARNERS.kind else COLUMNS
    if json:
        print_json(rows)
        return
    if not rows:
        say(f"No {kind} found." if timm is None else f"timm has no network that matches {timm!r}.")
    print_table(columns, [[_cell(row, column) for column in columns] for row in rows], title=kind)


def _cell(row: dict[str, Any], column: str) -> str:
    if column == "status":
        return str(row["error"] or "ok")
    value = row[column]
    if value is None:
        return UNKNOWN
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def object_rows(registry: Registry) -> list[dict[str, Any]]:
    """Describe every registered object of one kind, without importing any."""
    rows = []
    for entry in registry.entries():
        owner, version = distribution_of(entry)
        description = describe_target(entry.module, entry.attr)
        row = {"name": entry.name, "description": description, "distribution": owner, "version": version}
        if registry is LEARNERS:
            row |= {column: declared_value(entry.module, entry.attr, name) for column, name in DECLARED.items()}
        rows.append(row)
    return rows


def plugin_rows() -> list[dict[str, Any]]:
    """Describe and load every object of other distributions; ``error`` is None where loading works."""
    rows = []
    for registry in REGISTRIES:
        for entry in registry.entries():
            owner, version = distribution_of(entry)
            if owner == OWN_DISTRIBUTION:
                continue
            rows.append(
                {
                    "name": entry.name,
                    "kind": registry.kind,
                    "distribution": owner,
                    "version": version,
                    "target": entry.value,
                    "error": loading_error(registry, entry),
                }
            )
    return rows


def loading_error(registry: Registry, entry: EntryPoint) -> str | None:
    """Say in one line why ``entry`` cannot be used, or None if it can."""
    try:
        load_entry(entry, registry.noun)
        registry.find(entry.name)
    except PluginError as error:
        cause = error.__cause__
        return " ".join(f"{type(cause).__name__}: {cause}".split()) if cause else str(error)
    return None


def timm_rows(pattern: str) -> list[dict[str, Any]]:
    """List timm's networks whose name matches ``pattern``; without a wildcard, whose name contains it.

    Raises:
        WeightsError: timm cannot be imported.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise WeightsError(f"timm cannot be imported ({error}); `lite-bench doctor` says why.") from error
    names = timm.list_models(pattern if "*" in pattern else f"*{pattern}*")
    return [{"name": name, "pretrained": bool(timm.is_model_pretrained(name))} for name in names]


def describe_target(module: str, attribute: str) -> str:
    """Read the first paragraph of a docstring from source text.

    Args:
        module: dotted name of a module.
        attribute: dotted name of a class or function in it.

    Returns:
        one line, empty if there is no source or no docstring.
    """
    node = find_definition(module, attribute)
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return " ".join(paragraph.replace("`", "").split())


def declared_value(module: str, attribute: str, name: str) -> Any:
    """Read a class attribute that is written as a plain value from source text, or give None.

    Args:
        module: dotted name of a module.
        attribute: dotted name of a class in it.
        name: of the class attribute.
    """
    node = find_definition(module, attribute)
    for statement in node.body if isinstance(node, ast.ClassDef) else []:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        value = getattr(statement, "value", None)
        if named and isinstance(value, ast.Constant):
            return value.value
    return None


def find_definition(module: str, attribute: str, hops: int = 3) -> ast.AST | None:
    """Find a class or function in source text.

    Args:
        module: dotted name of a module.
        attribute: dotted name in it.
        hops: how many re-exports to follow.
    """
    path = find_source(module)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8")) if path else None
    except (OSError, SyntaxError, ValueError):
        tree = None
    if path is None or tree is None:
        return None
    node: ast.AST = tree
    for name in attribute.split("."):
        definition = _definition(node, name)
        if definition is None:
            origin = _re_export(tree, name, module, is_package=path.stem == "__init__")
            return find_definition(*origin, hops - 1) if origin and hops else None
        node = definition
    return node


def _definition(node: ast.AST, name: str) -> ast.AST | None:
    """Find the class or function called ``name`` directly inside ``node``."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return next(
        (child for child in ast.iter_child_nodes(node) if isinstance(child, kinds) and child.name == name),
        None,
    )


def _re_export(tree: ast.Module, name: str, module: str, *, is_package: bool) -> tuple[str, str] | None:
    """Find the module and name that ``from ... import name`` takes it from."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        original = next((alias.name for alias in node.names if name in {alias.asname, alias.name}), None)
        if original is None:
            continue
        up = node.level - is_package
        base = module.split(".")[: -up or None] if node.level else []
        return ".".join([*base, *(node.module or "").split(".")]).strip("."), original
    return None


def find_source(module: str) -> Path | None:
    """Find the source file of ``module`` without importing it or the packages around it."""
    path, parts = None, module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        specs = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            return None
        path, origin = spec.submodule_search_locations, spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None
