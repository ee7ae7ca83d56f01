"""A headless Chromium that tests drive, where one is installed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MISSING = "no {what}: install Debian's chromium and chromium-driver, and the dev extras (make browser)"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--window-size=1280,900",
)


def installed(*names: str) -> str:
    """Give the path of the first of these programs that is installed, or skip the test."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(MISSING.format(what=names[0]))
    return found


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Start Chromium with a fresh profile, and end it; skips the test where there is none."""
    binary, driver = installed("chromium", "chromium-browser"), installed("chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason=MISSING.format(what="selenium"))
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    service = webdriver.ChromeService(
        executable_path=driver, env={**os.environ, "HOME": str(profile), "NO_PROXY": "*", "no_proxy": "*"}
    )
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


def requests(browser: Any) -> list[str]:
    """List the addresses that the browser has asked for since this was last called."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]


def complaints(browser: Any) -> list[str]:
    """List what the console has said since this was last called: errors, warnings and violations of the policy."""
    return [f"{entry['level']}: {entry['message']}" for entry in browser.get_log("browser")]


def emulate(browser: Any, **features: str) -> None:
    """Set media features, such as ``prefers_color_scheme="dark"``; ``media="print"`` sets the medium.

    Returns once the page has been told: events of media come with the next frame.
    """
    medium = features.pop("media", "")
    listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": listed})
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()));")


def resize(browser: Any, width: int, height: int, *, mobile: bool = False) -> None:
    """Set the size of the screen in CSS pixels."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
