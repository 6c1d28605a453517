"""Reads a report's page, which is also well-formed XML but for its ``<meta>`` tags."""

import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


def read(path: Path) -> Element:
    text = path.read_text(encoding="utf-8")
    return ElementTree.fromstring(re.sub(r"<meta([^>]*)>", r"<meta\1/>", text))


def text_of(page: Element) -> str:
    return "".join(page.itertext())


def tags(page: Element) -> list[str]:
    """Without namespaces."""
    return [element.tag.rpartition("}")[2] for element in page.iter()]


def check_alone(page: Element, written: Iterable[Path]) -> None:
    """Its references lead to itself, to a file written with it or online; nothing is loaded."""
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids)), "ids are unique"
    assert "script" not in tags(page)
    names = {path.name for path in written}
    for element in page.iter():
        for name, value in element.items():
            key = name.rpartition("}")[2]
            assert not key.startswith("on"), key
            if key == "aria-labelledby":
                assert set(value.split()) <= set(ids)
            elif value.startswith("#") and key == "href":
                assert value[1:] in ids, value
            elif key == "href" and element.tag == "a":
                assert value.startswith("https://") or value in names, value
            elif key in ("src", "srcset", "href", "data", "action"):
                raise AssertionError(f"{value} would be loaded")
