"""``lite-bench doctor``: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import typer

from lite_bench.harness.cli import flags
from lite_bench.harness.cli.listing import loading_error, plugin_rows
from lite_bench.harness.cli.output import print_json, print_table
from lite_bench.harness.environment import describe_environment, installed_version, weights_cache_folders
from lite_bench.harness.errors import LiteBenchError
from lite_bench.harness.registry import OWN_DISTRIBUTION, REGISTRIES, SUITES, distribution_of

VARIABLES = (
    "RECORDS",
    "TFDS_DATA_DIR",
    "SUN397_ROOT",
    "ORBIT_BENCHMARK_ROOT",
    "OMNIGLOT_ROOT",
    "TORCH_HOME",
    "HF_HOME",
    "LITE_BENCH_HOME",
)
LIBRARIES = ("torch", "torchvision", "timm")
BYTES_PER_GB = 1e9


def doctor(data_dir: flags.DataDirFlag = None, json: flags.JsonFlag = False) -> None:
    """Check versions, devices, data, weights folders and plug-ins.

    Exits with 1 if something installed is broken; missing data is a normal state.

    Example: `lite-bench doctor`
    """
    found = diagnose(data_dir)
    if json:
        print_json(found)
    else:
        print_table(("what", "state", "detail"), as_rows(found))
    if found["problems"]:
        for problem in found["problems"]:
            typer.echo(f"Problem: {problem}", err=True)
        raise typer.Exit(1)


def diagnose(data_dir: Path | None = None) -> dict[str, Any]:
    """Examine this machine.

    Args:
        data_dir: folder to look for data in, beside the usual places.

    Returns:
        values that JSON can hold; ``problems`` says what keeps lite-bench or a plug-in from working.
    """
    imports = {name: import_error(name) for name in LIBRARIES}
    plugins = plugin_rows()
    folders = {name: {"path": str(path), "exists": path.is_dir()} for name, path in weights_cache_folders().items()}
    return {
        "environment": describe_environment(devices=imports["torch"] is None),
        "imports": imports,
        "data": [data_row(name, data_dir) for name in dict.fromkeys(SUITES.names())],
        "weights": folders,
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "plugins": plugins,
        "problems": [*import_problems(imports), *own_problems(imports), *plugin_problems(plugins)],
    }


def import_error(library: str) -> str | None:
    """Import ``library`` and give the error in one line, or None if it works."""
    try:
        importlib.import_module(library)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def import_problems(imports: dict[str, str | None]) -> list[str]:
    """Explain which libraries cannot be imported, and why.

    torch and torchvision from different builds (one for CPUs only, one for CUDA) install without complaint,
    but then torchvision cannot register its operators, and timm, which imports it, fails as well.
    """
    broken = {name: error for name, error in imports.items() if error}
    if "torch" not in broken and any("torchvision" in error for error in broken.values()):
        pair = " and ".join(f"{name} {library_version(name)}" for name in ("torch", "torchvision"))
        error = next(iter(broken.values()))
        remedy = "both in one command and from the same index: pip install --force-reinstall torch torchvision"
        return [f"{pair} come from different builds and do not fit together ({error}). Install {remedy}"]
    return [f"{name} cannot be imported ({error}); reinstall it: pip install {name}" for name, error in broken.items()]


def library_version(name: str) -> str:
    """Give the version a library itself states, which names its build (``+cpu``), or that of its metadata."""
    try:
        module = importlib.import_module(f"{name}.version")
    except Exception:
        return installed_version(name) or "(not installed)"
    return str(getattr(module, "__version__", None) or installed_version(name))


def own_problems(imports: dict[str, str | None]) -> list[str]:
    """Find objects of ours that fail to load; pointless while the libraries beneath them are broken."""
    if any(imports.values()):
        return []
    found = []
    for registry in REGISTRIES:
        for entry in registry.entries():
            error = loading_error(registry, entry) if distribution_of(entry)[0] == OWN_DISTRIBUTION else None
            if error:
                found.append(f"{registry.noun} {entry.name} does not load ({error}); reinstall {OWN_DISTRIBUTION}.")
    return found


def plugin_problems(plugins: list[dict[str, Any]]) -> list[str]:
    """Say which plug-ins fail to load."""
    return [
        f"{row['name']} of {row['distribution']} {row['version']} does not load ({row['error']}); repair or "
        f"uninstall {row['distribution']}."
        for row in plugins
        if row["error"]
    ]


def data_row(suite: str, data_dir: Path | None) -> dict[str, Any]:
    """Say where the data of one suite is, or that it needs none."""
    row: dict[str, Any] = {"suite": suite, "embedded": False, "found": None, "error": None}
    try:
        factory = SUITES.load(suite)
        row["embedded"] = bool(factory.embedded)
        row["found"] = factory.configured(data_dir)
    except (LiteBenchError, AttributeError) as error:
        row["error"] = str(error)
    return row


def as_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lay a diagnosis out as rows of what, state and detail."""
    environment = found["environment"]
    rows = [("python", environment["python"], environment["platform"])]
    for name, version in environment["versions"].items():
        error = found["imports"].get(name)
        rows.append((name, version or "absent", error or ""))
    rows += device_rows(environment)
    for row in found["data"]:
        state = "embedded" if row["embedded"] else "found" if row["found"] else "not found"
        rows.append(
            (
                f"data of {row['suite']}",
                "error" if row["error"] else state,
                row["error"] or row["found"] or "",
            )
        )
    for library, weights in found["weights"].items():
        rows.append((f"weights of {library}", "exists" if weights["exists"] else "absent", weights["path"]))
    rows += [(name, "set" if value else "not set", value or "") for name, value in found["variables"].items()]
    for plugin in found["plugins"]:
        rows.append((f"plug-in {plugin['name']}", "fails" if plugin["error"] else "loads", plugin["distribution"]))
    return rows


def device_rows(environment: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lay out processor and GPUs."""
    devices = environment.get("devices", {})
    threads = f"{devices['cpu_threads']} threads" if devices else f"{environment['cpu_count']} cores"
    rows = [("cpu", threads, environment["cpu"])]
    for index, gpu in enumerate(devices.get("gpus", [])):
        memory = f"{gpu['memory_bytes'] / BYTES_PER_GB:.0f} GB"
        rows.append((f"cuda:{index}", memory, f"{gpu['name']}, CUDA {devices['cuda']}, cuDNN {devices['cudnn']}"))
    if devices and not devices["gpus"]:
        rows.append(("cuda", "no GPU", f"torch is built for CUDA {devices['cuda']}" if devices["cuda"] else ""))
    return rows
