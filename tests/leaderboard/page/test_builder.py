"""The page as text: whole without a script, valid, self-contained, and safe against every name in it."""

from __future__ import annotations

import base64
import hashlib
import re
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite_bench.leaderboard.intervals import Kind
from lite_bench.leaderboard.labels import visible
from lite_bench.leaderboard.page.builder import html, plots_of
from lite_bench.leaderboard.page.details import relative_link
from lite_bench.leaderboard.page.elements import shorten
from lite_bench.leaderboard.tables import Table, make_tables
from lite_bench.leaderboard.text import footer, score_text
from tests.leaderboard.page.boards import HOSTILE, hostile_board, read_folder, small_board, video_board, wide_board
from tests.leaderboard.page.tree import Node, Tree

TAGS = """
html head meta title style script body a header div h1 h2 h3 h4 button nav ul ol li main dialog section p span label
input table caption thead tbody tr th td bdi strong abbr details summary dl dt dd code b footer figure img figcaption
"""
BLANK = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 36"><text onload="x()">{}</text></svg>'
CONTRASTS = [
    *[(ink, page) for ink in ("ink", "muted", "link") for page in ("page", "tint", "published", "chosen")],
    ("alert", "page"),
    ("alert", "alert-page"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boards")


@pytest.fixture(scope="module")
def boards(folder: Path) -> dict[str, Table]:
    makers: dict[str, Callable[[Path], Table]] = {
        "small": small_board,
        "wide": wide_board,
        "video": video_board,
        "hostile": hostile_board,
    }
    return {name: make(folder / name) for name, make in makers.items()}


@pytest.fixture(scope="module")
def page(boards: dict[str, Table], folder: Path) -> Node:
    return Tree(html(list(boards.values()), plots=None, folder=folder)).root


def test_the_same_tables_give_the_same_page(boards: dict[str, Table]) -> None:
    assert html([boards["small"]], plots=None) == html([boards["small"]], plots=None)


def test_there_may_be_no_table() -> None:
    assert "There is no table" in html([])


def test_elements_and_attributes_are_only_ours(page: Node) -> None:
    for node in page.all():
        assert node.tag in TAGS.split()
        assert not [name for name in node.attributes if name.startswith("on") or name in {"style", "srcdoc", "action"}]
    assert [len(page.all(tag)) for tag in ("script", "style", "title", "h1", "main", "dialog")] == [1] * 6
    assert not page.all("script")[0].attributes
    assert not page.all("img")


def test_no_hostile_text_is_lost(page: Node) -> None:
    for text in HOSTILE:
        assert visible(text) in page.text


def test_links_stay_here(page: Node) -> None:
    ids = {node.attributes["id"] for node in page.all() if "id" in node.attributes}
    for link in page.all("a"):
        target = urlsplit(link.attributes["href"] or "?")
        assert not target.scheme
        assert not target.netloc
        assert not target.path.startswith("/")
        assert bool(target.path) != bool(target.fragment)
        assert not target.fragment or target.fragment in ids


def test_ids_are_unique_and_references_lead_to_them(page: Node) -> None:
    ids = Counter(node.attributes["id"] for node in page.all() if "id" in node.attributes)
    assert set(ids.values()) == {1}
    names = ("for", "aria-labelledby", "aria-controls", "aria-describedby")
    references = {node.attributes[name] for node in page.all() for name in names if name in node.attributes}
    assert references
    assert references <= set(ids)


def test_grids_are_whole(page: Node) -> None:
    """Every table has a caption, heads with a scope, and lines as wide as its head."""
    for table in page.all("table"):
        assert table.children[0].tag == "caption"
        assert table.children[0].text
        width = len(table.all("thead")[0].all("th"))
        assert all(head.attributes["scope"] in {"col", "row", "rowgroup"} for head in table.all("th"))
        for line in table.all("tr"):
            assert sum(int(cell.attributes.get("colspan") or 1) for cell in line.children) == width


def test_the_policy_allows_the_one_script_and_style_by_their_digests(boards: dict[str, Table]) -> None:
    text = html([boards["hostile"]], plots=None)
    root = Tree(text).root
    (meta,) = root.all("meta", http_equiv="Content-Security-Policy")
    policy = dict(part.strip().split(" ", 1) for part in (meta.attributes["content"] or "").split(";"))
    for name in ("script", "style"):
        (content,) = re.findall(f"<{name}>(.*?)</{name}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert text.index("Content-Security-Policy") < min(text.index("<script>"), text.index("<style>"))


@pytest.mark.parametrize("name", ["page.js", "page.css"])
def test_script_and_style_fetch_nothing_and_parse_no_text(name: str) -> None:
    text = files("lite_bench.leaderboard.page").joinpath(name).read_text(encoding="utf-8")
    forbidden = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch(")
    for word in (*forbidden, "XMLHttp", "@import", "import(", "url(", "http:", "https:", "</"):
        assert word not in text


def test_grids_hold_the_numbers_of_the_tables(boards: dict[str, Table], page: Node) -> None:
    for number, table in enumerate(boards.values(), start=1):
        (section,) = page.all("section", id=f"t{number}")
        for block in section.all("section", class_="block"):
            columns = [head.attributes["data-key"] for head in block.all("thead")[0].all("th")][2:]
            lines = block.all("tbody")[0].all("tr")
            for line, row in zip(lines, table.rows, strict=True):
                assert visible(row.label).startswith(line.all("bdi")[0].text.removesuffix("…"))
                for cell, key in zip(line.children[2:], columns, strict=True):
                    own = next(each for name, each in row.cells.items() if visible(f"score {name}") == key)
                    marks = "".join(mark.text for mark in [*cell.all("a"), *cell.all("abbr")])
                    assert cell.text.removesuffix(marks).rstrip() == score_text(own, table.interval)
                    value = cell.attributes.get("data-value")
                    assert (None if own.estimate is None else own.estimate.mean) == (value and float(value))


def test_best_and_ties_are_marked_and_a_missing_score_says_why(page: Node) -> None:
    (section,) = page.all("section", id="t1")
    grid = section.all("table")[0]
    bold = {cell.attributes["data-column"]: cell.text for cell in grid.all("td") if cell.all("strong")}
    assert bold == {"a": "90.0 ± 4.9", "b": "85.0 ± 4.9", "c": "40.0 ± 4.9", "all": "60.8 ± 2.8"}
    ties = [cell.all("abbr")[0].attributes["title"] for cell in grid.all("td") if cell.all("abbr")]
    assert len(ties) == 3 + 1 + 3 + 1  # a, b, c and their mean: differences all alike over 4 tasks prove nothing
    assert all((title or "").startswith("Not told from the best: ") for title in ties)
    notes = {item.attributes["id"]: item.text for item in section.all("ol", class_="notes")[0].all("li")}
    reasons = {
        cell.attributes["data-column"]: notes[(cell.all("a")[0].attributes["href"] or "")[1:]]
        for cell in grid.all("td", class_="missing")
    }
    assert reasons["b"].startswith(("4 of 4 tasks are missing", "1 of 4 tasks failed"))
    assert reasons["all"].startswith("No mean")


def test_one_row_alone_is_not_the_best(boards: dict[str, Table]) -> None:
    table = boards["small"]
    root = Tree(html([replace(table, rows=table.rows[:1])], plots=None)).root
    assert not root.all("strong")


def test_published_rows_stand_apart_without_a_rank(page: Node) -> None:
    (section,) = page.all("section", id="t1")
    ours, theirs = section.all("table")[0].all("tbody")
    assert not [line for line in ours.all("tr") if "Theirs" in line.text]
    assert theirs.attributes["class"] == "published"
    divider, *lines = theirs.all("tr")
    assert "never ranked" in divider.text
    assert [line.all("bdi")[0].text for line in lines] == ["Theirs", "Others"]
    assert {line.children[0].text for line in lines} == {""}
    assert {line.all("span", class_="badge")[0].text for line in lines} == {"published"}


def test_details_tell_everything_of_a_row(boards: dict[str, Table], page: Node) -> None:
    (section,) = page.all("section", id="t1")
    row = boards["small"].rows[1]
    assert row.label == "alpha"
    details = section.all("div", id="t1-r1")[0]
    lines = {line.attributes["data-column"]: [cell.text for cell in line.children] for line in details.all("tr")[1:]}
    assert lines["a"][:6] == ["a", "50.00", "45.10 to 54.90", "4", "4 of 4", "0"]
    assert lines["a"][7:10] == ["−40.00", "–", "0.12"]
    assert lines["b"][7] == "the best"
    pairs = dict(zip([x.text for x in details.all("dt")], [x.text for x in details.all("dd")], strict=True))
    expected = {"Learner": "learner0", "Options": "scale = 0", "Gradient": "lite", "H": "10", "Train tasks": "100"}
    expected |= {"Checkpoint": "0123456789abcdef" * 4, "MACs to adapt": "9 G (9,000,000,000)", "Versions": "torch 2.0"}
    assert expected.items() <= pairs.items()
    assert details.all("code")[0].text == "lite-bench train learner0 'x'"
    failed = section.all("div", id="t1-r3")[0]
    assert "The 3 scores that did not fail have the mean 58.3 %." in failed.text  # 0.55, 0.55 and 0.65


def test_clustered_intervals_are_in_the_details(boards: dict[str, Table], page: Node) -> None:
    (section,) = page.all("section", id="t3")
    details = section.all("details", class_="row-details")[0]
    heads = [head.text for head in details.all("thead")[0].all("th")]
    line = [cell.text for cell in details.all("tbody")[0].all("tr")[0].children]
    estimate = boards["video"].rows[0].sources["clean"].estimate
    assert estimate is not None
    assert estimate.clustered is not None
    low, high = estimate.clustered
    assert dict(zip(heads, line, strict=True))["Of clusters"] == f"{100 * low:.2f} to {100 * high:.2f}"


@pytest.mark.parametrize("kind", [Kind.student, Kind.bootstrap])
def test_another_interval_stands_beside_the_protocols(boards: dict[str, Table], folder: Path, kind: Kind) -> None:
    (table,) = make_tables(read_folder(folder / "small"), interval=kind)
    assert len(boards["small"].rows) == len(table.rows)
    root = Tree(html([table], plots=None)).root
    line = root.all("div", id="t1-r0")[0].all("tbody")[0].all("tr")[0]
    cell = table.rows[0].sources["a"]
    assert cell.interval is not None
    shown = [each.text for each in line.children]
    assert shown[:2] == ["a", "90.00"]
    assert shown[2] == "85.10 to 94.90"  # 1.96 * 0.05 / sqrt(4)
    assert shown[3] == f"{100 * cell.interval.low:.2f} to {100 * cell.interval.high:.2f}" != shown[2]


def test_wide_suites_have_a_block_per_group(page: Node) -> None:
    (section,) = page.all("section", id="t2")
    titles = [block.all("h3")[0].text for block in section.all("section", class_="block")]
    assert titles == ["Means", "MD-v2", "natural", "specialized", "structured"]


def test_badges_say_what_a_table_is(boards: dict[str, Table]) -> None:
    table = replace(boards["small"], synthetic=True, preview=3)
    badges = [each.text for each in Tree(html([table], plots=None)).root.all("span", class_="alert")]
    assert badges == ["synthetic", "preview of 3 tasks per source"]


def test_the_footer_says_what_the_table_rests_on(boards: dict[str, Table], page: Node) -> None:
    (end,) = [each for each in page.all("section", id="t1")[0].children if each.tag == "footer"]
    for _, text in footer(boards["small"]):
        assert text in end.text


def test_links_lead_to_the_files_of_the_runs(page: Node, folder: Path) -> None:
    links = [
        link.attributes["href"] or "" for link in page.all("a") if not (link.attributes["href"] or "").startswith("#")
    ]
    assert len(links) > 20
    for link in links:
        assert (folder / unquote(link)).is_file()
    assert any("javascript%3Aalert" in link for link in links)


def test_without_a_folder_there_are_no_links(boards: dict[str, Table]) -> None:
    root = Tree(html([boards["small"]], plots=None)).root
    assert {(link.attributes["href"] or "?")[0] for link in root.all("a")} == {"#"}


NAMES = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=8)
PARTS = st.lists(NAMES.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_relative_links_resolve_to_the_file(path: list[str], base: list[str]) -> None:
    target, start = Path("/", *path), Path("/", *base)
    link = relative_link(target, start)
    assert link is not None
    assert set(link) <= set(string.ascii_letters + string.digits + "_.-~/%")
    page = f"{start.as_uri()}/page.html"
    assert unquote(urlsplit(urljoin(page, link)).path).rstrip("/") == str(target)


def test_pictures_are_images_that_cannot_run(boards: dict[str, Table]) -> None:
    hostile = BLANK.format("</script><script>alert(1)</script>")
    root = Tree(html([boards["small"]], plots=lambda _: [("A <b>title", hostile)])).root
    (image,) = root.all("img")
    head, _, data = (image.attributes["src"] or "").partition(",")
    assert (head, base64.b64decode(data).decode()) == ("data:image/svg+xml;base64", hostile)
    assert (image.attributes["width"], image.attributes["height"]) == ("96", "48")  # 72 and 36 points
    assert root.all("figcaption")[0].text == "A <b>title"
    assert len(root.all("script")) == 1


def test_pictures_of_the_table_are_drawn_by_default(boards: dict[str, Table], monkeypatch: pytest.MonkeyPatch) -> None:
    from lite_bench.leaderboard import plots

    monkeypatch.setattr(plots, "inline_plots", lambda table: [(table.suite, BLANK)])
    assert plots_of(boards["small"]) == [("letters@1", BLANK)]
    assert html([boards["small"]]).count("<img ") == 1


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "paper"), CONTRASTS)
def test_texts_stand_out_in_both_themes(theme: int, ink: str, paper: str) -> None:
    style = files("lite_bench.leaderboard.page").joinpath("page.css").read_text(encoding="utf-8")
    pairs = {n: (a, b) for n, a, b in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", style)}
    light, dark = sorted((luminance(pairs[ink][theme]), luminance(pairs[paper][theme])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_title_of_many_suites_is_cut(boards: dict[str, Table]) -> None:
    tables = [replace(boards["small"], suite=f"{'long' * 9}{number}@1") for number in range(4)]
    (title,) = Tree(html(tables, plots=None)).root.all("title")
    assert title.text == shorten("Leaderboard: " + ", ".join(table.suite for table in tables), 120)


def test_importing_the_page_loads_nothing_heavy() -> None:
    heavy = ("numpy", "scipy", "matplotlib", "torch")
    module = "lite_bench.leaderboard.page.builder"
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
