"""The page in a real browser: sorting, filters, tabs, details, themes, a phone, print, and names that attack it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lite_bench.leaderboard.page.builder import html
from lite_bench.leaderboard.tables import Table
from tests.leaderboard.browser import chromium, complaints, emulate, requests, resize
from tests.leaderboard.page.boards import HOSTILE, hostile_board, small_board, wide_board

ENTER, SPACE, ESCAPE, RIGHT, HOME, TAB = "\ue007", "\ue00d", "\ue00c", "\ue014", "\ue011", "\ue004"
PICTURE = """
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 90" onload="alert(1)"
  xmlns:xlink="http://www.w3.org/1999/xlink">
<script>alert(2)</script><image xlink:href="https://example.org/a.png" width="9" height="9"/>
<style>@import url(https://example.org/b.css);</style>
<rect width="90" height="90" style="fill: #00ff00"/></svg>
"""
CONTRASTS = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
const paper = (node) => {
  for (let here = node; here; here = here.parentElement) {
    const colour = parse(getComputedStyle(here).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return null;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
  const [a, b] = [parse(getComputedStyle(node).color), paper(node)].map(light);
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
}
return found;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages on disk; made after the browser, so that nothing is made where there is none."""
    folder = tmp_path_factory.mktemp("pages")
    boards: dict[str, Callable[[Path], Table]] = {"small": small_board, "wide": wide_board, "hostile": hostile_board}
    paths = {}
    for name, make in boards.items():
        paths[name] = folder / f"{name}.html"
        text = html([make(folder / name)], plots=lambda _: [("Picture", PICTURE.strip())], folder=folder)
        paths[name].write_text(text, encoding="utf-8")
    paths["no script"] = folder / "plain.html"
    text = re.sub("<script>.*?</script>", "", paths["wide"].read_text(encoding="utf-8"), flags=re.DOTALL)
    paths["no script"].write_text(text, encoding="utf-8")
    return paths


@pytest.fixture
def show(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[[str], Any]]:
    """Open a page by name on a desktop in light; afterwards nothing may have been complained of or asked for."""

    def open_page(name: str) -> Any:
        resize(browser, 1280, 900)
        emulate(browser, prefers_color_scheme="light")
        browser.get("about:blank")
        complaints(browser), requests(browser)
        browser.get(pages[name].as_uri())
        return browser

    yield open_page
    assert complaints(browser) == []
    assert {address for address in requests(browser) if not address.startswith("data:image/svg+xml;base64,")} <= {
        "about:blank",
        *(path.as_uri() for path in pages.values()),
    }
    with suppress(Exception):  # a page that denies it has none
        browser.execute_script("localStorage.clear()")


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def press(browser: Any, key: str) -> None:
    browser.switch_to.active_element.send_keys(key)


def head(browser: Any, key: str, grid: int = 0) -> Any:
    """The button in the head of a column."""
    script = (
        "return document.querySelectorAll('.grid')[arguments[0]].querySelector(`th[data-key='${arguments[1]}'] button`)"
    )
    return browser.execute_script(script, grid, key)


def names(browser: Any, grid: int = 0, body: int = 0) -> list[str]:
    """The rows that are shown in a grid's body, in order."""
    script = """
    const body = document.querySelectorAll(".grid")[arguments[0]].tBodies[arguments[1]];
    return [...body.rows].filter((row) => row.dataset.row && row.checkVisibility())
      .map((row) => row.querySelector("bdi").textContent);
    """
    found: list[str] = browser.execute_script(script, grid, body)
    return found


def sorted_heads(browser: Any) -> dict[str, str]:
    script = "return [...document.querySelectorAll('th[aria-sort]')].map((th) => [th.dataset.key, th.ariaSort])"
    return dict(browser.execute_script(script))


@pytest.mark.parametrize(
    ("grid", "key", "first", "order", "back"),
    [
        (0, "rank", "descending", "alpha beta gamma delta", "beta alpha gamma delta"),
        (0, "score a", "descending", "beta gamma alpha delta", "delta alpha gamma beta"),
        (0, "score b", "descending", "alpha beta gamma delta", "beta alpha gamma delta"),  # the last two have none
        (0, "learner", "ascending", "alpha beta delta gamma", "gamma delta beta alpha"),
        (1, "setup Image (px)", "ascending", "alpha gamma delta beta", "beta delta alpha gamma"),
        (1, "setup Backbone", "ascending", "alpha gamma delta beta", "beta delta alpha gamma"),
        (1, "setup H", "ascending", "alpha beta gamma delta", "delta gamma beta alpha"),
        (2, "cost of a task MACs", "ascending", "alpha beta gamma delta", "gamma beta alpha delta"),  # 9, 80, 700 G, –
        (2, "cost of a task Adapt", "ascending", "alpha beta gamma delta", "gamma beta alpha delta"),  # 10, 100 ms, 1 s
    ],
)
def test_sorting_by_clicks(show: Any, grid: int, key: str, first: str, order: str, back: str) -> None:
    browser = show("small")
    assert sorted_heads(browser) == {"rank": "ascending"}
    other = "descending" if first == "ascending" else "ascending"
    for direction, expected in ((first, order), (other, back), (first, order)):
        head(browser, key, grid).click()
        assert sorted_heads(browser) == {key: direction}
        assert [names(browser, number) for number in range(3)] == [expected.split()] * 3
        assert direction in find(browser, ".status").text


def test_sorting_by_keyboard(show: Any) -> None:
    browser = show("small")
    head(browser, "score c").send_keys(ENTER)
    assert names(browser) == ["delta", "gamma", "alpha", "beta"]
    head(browser, "score c").send_keys(SPACE)
    assert names(browser) == ["beta", "alpha", "gamma", "delta"]
    assert browser.switch_to.active_element == head(browser, "score c")


def test_published_rows_stay_below_and_are_sorted_by_themselves(show: Any) -> None:
    browser = show("small")
    head(browser, "score a").click()
    assert names(browser, body=1) == ["Others", "Theirs"]  # 0.95 is more than our best, 0.9
    assert names(browser)[0] == "beta"
    first = "return document.querySelectorAll('.grid')[0].tBodies[1].rows[0].className"
    assert browser.execute_script(first) == "divider"
    head(browser, "score all").click()
    assert names(browser, body=1) == ["Theirs", "Others"]  # which has none, last


def test_filter_and_published_rows(show: Any) -> None:
    browser = show("small")
    box = find(browser, ".filter")
    box.send_keys("CONV4 lite")
    assert [names(browser, number) for number in range(3)] == [["alpha", "gamma"]] * 3
    assert find(browser, ".status").text == "2 of 6 rows"
    assert names(browser, body=1) == []
    assert not find(browser, ".divider").is_displayed()
    box.clear()
    box.send_keys("imagenet")
    assert (names(browser), names(browser, body=1)) == ([], ["Theirs", "Others"])
    box.clear()
    box.send_keys(" ")
    assert len(names(browser)) == 4
    find(browser, ".show-published").click()
    assert (len(names(browser)), names(browser, body=1)) == (4, [])
    find(browser, ".show-published").click()
    assert names(browser, body=1) == ["Theirs", "Others"]


def test_wide_suites_have_tabs(show: Any) -> None:
    browser = show("wide")
    tabs = browser.find_elements("css selector", "[role=tab]")
    panels = browser.find_elements("css selector", "[role=tabpanel]")
    assert [tab.text for tab in tabs] == ["Means", "MD-v2", "natural", "specialized", "structured"]
    tabs[2].click()
    assert [panel.is_displayed() for panel in panels] == [False, False, True, False, False]
    press(browser, RIGHT)
    assert browser.switch_to.active_element == tabs[3]
    press(browser, HOME)
    assert [tab.get_attribute("aria-selected") for tab in tabs] == ["true", "false", "false", "false", "false"]
    assert [tab.get_attribute("tabindex") for tab in tabs] == ["0", "-1", "-1", "-1", "-1"]
    assert panels[0].is_displayed()
    emulate(browser, media="print")
    assert all(panel.is_displayed() for panel in panels)
    assert not tabs[0].is_displayed()
    assert not find(browser, ".filter").is_displayed()


def test_details_open_at_the_score_and_give_the_focus_back(show: Any) -> None:
    browser = show("small")
    dialog = find(browser, "dialog")
    find(browser, "tr[data-row=r1] td[data-column=b]").click()
    assert dialog.is_displayed()
    assert find(browser, "#details-title").text == "alpha"
    assert find(browser, "dialog tr.chosen th").text == "b"
    assert "lite-bench train learner0 'x'" in dialog.text
    assert browser.switch_to.active_element.text == "Close"
    press(browser, ESCAPE)
    assert not dialog.is_displayed()
    assert browser.switch_to.active_element == find(browser, "a[href='#t1-r1']")


@pytest.mark.parametrize("key", [ENTER, SPACE])
def test_details_by_keyboard(show: Any, key: str) -> None:
    browser = show("small")
    link = find(browser, "a[href='#t1-p0']")
    link.send_keys(key)
    dialog = find(browser, "dialog")
    assert find(browser, "#details-title").text == "Theirs (published)"
    assert "Somebody and others, A paper, 2021, Table 2" in dialog.text
    inside = "return document.activeElement === document.body || !!document.activeElement.closest('dialog')"
    for _ in range(4):
        press(browser, TAB)
        assert browser.execute_script(inside)
    find(browser, "#close").click()
    assert not dialog.is_displayed()
    assert browser.switch_to.active_element == link


def test_details_link_to_the_records(show: Any, pages: dict[str, Path]) -> None:
    browser = show("small")
    find(browser, "tr[data-row=r1] td").click()
    links = {link.text: link.get_attribute("href") for link in browser.find_elements("css selector", "dialog .files a")}
    run = pages["small"].parent / "small" / "run 0"
    assert links["config.toml"] == (run / "config.toml").as_uri()
    assert set(links) == {"config.toml", "environment.json", "suite.json", "a.jsonl", "b.jsonl", "c.jsonl"}


def background(browser: Any) -> str:
    text: str = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return text


def test_the_theme_is_the_systems_until_one_is_chosen(show: Any) -> None:
    browser = show("small")
    light = background(browser)
    emulate(browser, prefers_color_scheme="dark")
    dark = background(browser)
    assert light != dark
    button = find(browser, "#theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert (background(browser), button.get_attribute("aria-pressed")) == (light, "false")
    browser.refresh()
    assert background(browser) == light  # it is remembered
    find(browser, "#theme").click()
    emulate(browser, prefers_color_scheme="light")
    assert background(browser) == dark
    emulate(browser, media="print")
    assert background(browser) == light


def test_the_theme_works_where_storage_is_refused(show: Any) -> None:
    browser = show("small")
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('', 'SecurityError'); } })"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    browser.refresh()
    light = background(browser)
    find(browser, "#theme").click()
    assert background(browser) != light
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_that_is_shown_stands_out(show: Any, scheme: str) -> None:
    """WCAG's contrast of 4.5, of computed colours."""
    browser = show("small")
    emulate(browser, prefers_color_scheme=scheme)
    time.sleep(0.2)  # colours change in a short transition
    found = browser.execute_script(CONTRASTS)
    find(browser, "tr[data-row=r3] td[data-column=b]").click()
    found += browser.execute_script(CONTRASTS)
    assert len(found) > 150
    assert [each for each in found if each[0] < 4.5] == []


@pytest.mark.parametrize("name", ["small", "wide"])
def test_tables_fit_on_paper(show: Any, name: str) -> None:
    browser = show(name)
    emulate(browser, media="print")
    resize(browser, 700, 1000)  # A4 less its margins
    ends = "return [...document.querySelectorAll('.grid')].map((grid) => grid.getBoundingClientRect().right)"
    assert max(browser.execute_script(ends)) <= 700
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 700


@pytest.mark.parametrize("name", ["small", "wide", "hostile", "no script"])
def test_a_phone_scrolls_tables_and_not_the_page(show: Any, name: str) -> None:
    browser = show(name)
    resize(browser, 360, 740, mobile=True)
    assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    script = """
    const box = [...document.querySelectorAll(".scroll")].find((each) => each.scrollWidth > each.clientWidth + 150);
    box.scrollLeft = 150;
    const name = box.querySelector("tbody .name");
    return [box.scrollLeft, name.getBoundingClientRect().left - box.getBoundingClientRect().left];
    """
    assert browser.execute_script(script) == [150, 0]
    if name != "no script":
        find(browser, "a.open").click()
        assert browser.execute_script("return document.querySelector('dialog').scrollWidth <= innerWidth")
        assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]


def test_without_a_script_everything_is_there(show: Any) -> None:
    browser = show("no script")
    assert all(block.is_displayed() for block in browser.find_elements("css selector", ".block"))
    for selector in (".filter", "#theme", "dialog", ".copy"):
        assert not any(each.is_displayed() for each in browser.find_elements("css selector", selector))
    browser.find_elements("css selector", "a.open")[0].click()
    assert browser.current_url.endswith("#t1-r0")
    assert "efficientnet_b0, 224 px" in find(browser, "#t1-r0 dl").text  # a browser opens what a link leads to
    browser.find_elements("css selector", ".row-details summary")[1].click()
    assert "efficientnet_b0, 224 px" in find(browser, "#t1-r1 dl").text


def test_no_name_can_do_anything(show: Any) -> None:
    browser = show("hostile")
    assert len(names(browser)) == len(HOSTILE)
    for button in browser.find_elements("css selector", "thead button, [role=tab]"):
        browser.execute_script("arguments[0].click()", button)
    find(browser, ".filter").send_keys("</script>")
    find(browser, ".filter").clear()
    for link in browser.find_elements("css selector", ".block:not([hidden]) a.open"):
        browser.execute_script("arguments[0].click()", link)
        assert find(browser, "#details-body").text
        find(browser, "#close").click()
    assert browser.execute_script("return document.querySelectorAll('iframe, svg, img:not(figure img)').length") == 0
    assert browser.execute_script("return document.scripts.length") == 1
    assert not has_alert(browser)
    assert len(browser.window_handles) == 1


def has_alert(browser: Any) -> bool:
    from selenium.common.exceptions import NoAlertPresentException

    try:
        return bool(browser.switch_to.alert.text) or True
    except NoAlertPresentException:
        return False


def test_pictures_show_and_run_nothing(show: Any) -> None:
    browser = show("small")
    image = "const image = document.querySelector('figure img'); "
    assert browser.execute_script(f"{image} return [image.complete, image.naturalWidth > 0, image.width]") == [
        True,
        True,
        120,
    ]
    pixel = """
    const canvas = document.createElement("canvas");
    canvas.getContext("2d").drawImage(image, 0, 0, 9, 9);
    return [...canvas.getContext("2d").getImageData(4, 4, 1, 1).data];
    """
    assert browser.execute_script(image + pixel) == [0, 255, 0, 255]
    assert not has_alert(browser)


def test_the_policy_stops_what_would_get_past_the_escaping(show: Any) -> None:
    """Elements put into the page against all rules do nothing, and the console says why."""
    browser = show("small")
    put = """
    const outside = document.createElement("img");
    outside.src = "https://example.org/x.png";
    const styled = document.createElement("p");
    styled.setAttribute("style", "position: fixed");
    document.body.append(outside, styled);
    let refused = 0;
    for (const attack of [
      () => { document.body.innerHTML = "<b>x</b>"; },
      () => { const script = document.createElement("script"); script.textContent = "window.ran = 1"; },
      () => { document.querySelector("h1").setAttribute("onclick", "window.ran = 1"); },
      () => { setTimeout("window.ran = 1"); },
    ]) {
      try { attack(); } catch { refused += 1; }
    }
    document.querySelector("h1").click();
    return [refused, getComputedStyle(styled).position, window.ran ?? 0];
    """
    assert browser.execute_script(put) == [4, "static", 0]
    said = complaints(browser)
    assert any("example.org" in text and "img-src" in text for text in said)
    assert any("style-src" in text for text in said)
    requests(browser)


def test_copying_a_command(show: Any) -> None:
    browser = show("small")
    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
    button = find(browser, "footer .copy")
    button.click()
    time.sleep(0.1)
    assert button.text == "Copied"
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == "lite-bench leaderboard runs --output board.html"
    browser.execute_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    button.click()
    time.sleep(0.1)
    assert button.text == "Selected: press Ctrl+C"
    assert browser.execute_script("return String(getSelection())") == copied


def test_nothing_moves_if_that_is_asked_for(show: Any) -> None:
    browser = show("small")
    duration = "return getComputedStyle(document.querySelector('.grid td')).transitionDuration"
    emulate(browser, prefers_reduced_motion="no-preference")
    assert browser.execute_script(duration) == "0.12s"
    emulate(browser, prefers_reduced_motion="reduce")
    assert browser.execute_script(duration) == "0s"


def test_the_first_tab_skips_to_the_tables(show: Any) -> None:
    browser = show("small")
    find(browser, "body").send_keys(TAB)
    assert browser.switch_to.active_element.text == "Skip to the tables"
    assert browser.execute_script("return document.activeElement.getBoundingClientRect().left >= 0")
    press(browser, ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"
