"""Reads a report's page as a browser would, and stops where it is not well-formed."""

from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Collects ids and references, and insists that every tag is closed where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.labels: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            elif key == "aria-labelledby":
                self.labels += (value or "").split()
            elif key == "href" and tag == "a":
                self.links.append(value or "")
            elif key in ("src", "srcset", "href", "xlink:href", "data", "action"):
                self.loaded.append(value or "")
            elif key.startswith("on"):
                raise AssertionError(f"<{tag} {key}>")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def check_alone(page: Reader, written: Iterable[Path]) -> None:
    """Its references lead to itself, to a file written with it or online; nothing is loaded."""
    assert len(page.ids) == len(set(page.ids)), "ids are unique"
    assert set(page.labels) <= set(page.ids)
    assert "script" not in page.tags
    assert all(target.startswith("#") for target in page.loaded), "nothing is loaded"
    names = {path.name for path in written}
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        elif not link.startswith("https://"):
            assert link in names, link
