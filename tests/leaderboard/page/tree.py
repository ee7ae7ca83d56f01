"""A page as a tree, by Python's own HTML parser."""

from __future__ import annotations

from html.parser import HTMLParser

from lite_bench.leaderboard.page.elements import VOID


class Node:
    """An element with its text and children."""

    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node] = []
        self.text = ""

    def all(self, tag: str = "", **attributes: str) -> list[Node]:
        """List the elements below of a tag and with attributes; of a class, with that among others."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        found = []
        for child in self.children:
            has = {**child.attributes, "class": None}
            classes = (child.attributes.get("class") or "").split()
            if tag in {"", child.tag} and all(
                value in classes if name == "class" else has.get(name) == value for name, value in wanted.items()
            ):
                found.append(child)
            found += child.all(tag, **attributes)
        return found


class Tree(HTMLParser):
    """Builds the tree of a page, and refuses one that is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self.here = Node("", {}, None)
        self.feed(text)
        self.close()
        assert self.here is self.root, f"<{self.here.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        node = Node(tag, dict(attrs), self.here)
        self.here.children.append(node)
        if tag not in VOID:
            self.here = node

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.here.tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        node: Node | None = self.here
        while node is not None:
            node.text += data
            node = node.parent
