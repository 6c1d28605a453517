"""What figures and tables have in common: colours, deterministic SVG, Markdown.

Figures are drawn in light colours; each SVG file carries a style sheet that replaces them on a dark
screen. The hues stay apart under the common colour-vision deficiencies, and each has a contrast of
at least 3 on its background.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

COLOURS: dict[str, tuple[str, str]] = {  # name: (on a light screen, on a dark one)
    "ground": ("#ffffff", "#1a1d25"),
    "ink": ("#1d2230", "#eceae4"),
    "muted": ("#5a6072", "#a9aebb"),
    "line": ("#d9d6cc", "#3a3f4d"),
    "wash": ("#b7c3d8", "#46536d"),
    "amber": ("#a8730a", "#e9ba2a"),
    "teal": ("#06a577", "#68f2dc"),
    "blue": ("#17368f", "#8abdec"),
    "crimson": ("#9b1239", "#ff3d68"),
    "violet": ("#bb45ea", "#dc55f2"),
    "slate": ("#74849f", "#8b939a"),
    "olive": ("#6b7013", "#c9cf5e"),
}
DARK_SCREEN = "@media screen and (prefers-color-scheme: dark)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def colour(name: str) -> str:
    """The light-screen colour of this name, as `#rrggbb`."""
    return COLOURS[name][0]


_RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's own font
    "svg.hashsalt": "steadyspike",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the layout depends on no system font
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.labelcolor": colour("muted"),
    "axes.titlecolor": colour("ink"),
    "axes.edgecolor": colour("line"),
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": colour("line"),
    "grid.linewidth": 0.7,
    "figure.facecolor": colour("ground"),
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.color": colour("ink"),
    "xtick.color": colour("line"),
    "ytick.color": colour("line"),
    "xtick.labelcolor": colour("muted"),
    "ytick.labelcolor": colour("muted"),
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 3.2,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.0,
    "path.simplify": False,
}


@contextmanager
def figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """An empty figure of this size in inches; draw and `save_svg` it inside the `with` block.

    Uses this module's style alone, whatever the user's own matplotlibrc says. `layout` is
    matplotlib's: "constrained" finds the margins, None leaves them to the caller.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield Figure(figsize=(width, height), layout=layout)


def line_style(
    name: str, marker: str = "", dashes: Sequence[float] = (), hollow: bool = False
) -> dict[str, Any]:
    """Arguments of `Axes.plot` for a line of the colour `name`; `dashes` are matplotlib's."""
    fill, edge = (colour("ground"), colour(name)) if hollow else (colour(name), colour("ground"))
    return {
        "color": colour(name),
        "linestyle": (0, tuple(dashes)) if dashes else "-",
        "marker": marker,
        "markerfacecolor": fill,
        "markeredgecolor": edge,
        "markeredgewidth": 1.2 if hollow else 0.8,
    }


def legend(drawing: Figure, axes: Axes, most_columns: int) -> None:
    """The labels of the lines in `axes`, above the figure, in as many columns as have room.

    More than two rows make the figure higher.
    """
    handles, labels = axes.get_legend_handles_labels()
    width = drawing.get_figwidth() * 72
    for columns in range(min(most_columns, max(len(labels), 1)), 0, -1):
        rows = -(-len(labels) // columns)
        filled = np.array_split(labels, columns)  # as matplotlib fills them
        # In points: the line and the gap behind a label, and about 5.3 for each letter.
        if sum(52 + 5.3 * max(map(len, column)) for column in filled) <= width:
            break
    # A long list must not take the room of the plot.
    drawing.set_figheight(drawing.get_figheight() + 0.2 * max(rows - 2, 0))
    drawing.legend(handles, labels, loc="outside upper center", ncols=columns, columnspacing=1.6)


_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_COORDINATES = ("d", "x", "y", "width", "height", "points", "transform", "viewBox")


def save_svg(drawing: Figure, name: str, title: str, description: str = "") -> str:
    """The figure as an SVG file, the same bytes on every machine.

    Args:
        drawing: made by `figure`, whose `with` block is still open.
        name: prefix of the file's ids, so that several figures fit into one page.
        title: what a screen reader reads out.
        description: more for a screen reader.
    """
    raw = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    drawing.savefig(raw, format="svg", metadata=no_metadata)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(raw.getvalue())
    _number_ids(root, name)
    used = set()
    for element in root.iter():
        for key in _COORDINATES:
            if key in element.attrib:
                element.set(key, re.sub(r"-?\d+\.\d+", _two_decimals, element.attrib[key]))
        if "style" in element.attrib:
            style = re.sub("font-family: [^;]*; ?", "", element.attrib["style"])
            element.set("style", style)
            used.update(re.findall("#[0-9a-f]{6}", style))
    sheet = root.find(f".//{{{_SVG}}}style")
    assert sheet is not None
    sheet.text = f"{sheet.text}{_dark_rules(used)}"
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib.update(width=width, height=height, role="img")
    root.set("font-family", FONT)
    root.set("aria-labelledby", f"{name}-title {name}-description")
    for tag, text in (("desc", description), ("title", title)):
        child = ElementTree.Element(f"{{{_SVG}}}{tag}")
        child.set("id", f"{name}-{'title' if tag == 'title' else 'description'}")
        child.text, child.tail = text, "\n"
        root.insert(0, child)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _number_ids(root: ElementTree.Element, name: str) -> None:
    """Number the ids that are referred to and drop the rest.

    matplotlib's are hashes of unrounded coordinates, which differ between processors.
    """
    new: dict[str, str] = {}
    for element in root.iter():
        for key in (_LINK, "clip-path"):
            found = re.search(r"#([^)]+)", element.get(key, ""))
            if found:
                identity = new.setdefault(found[1], f"{name}-{len(new) + 1}")
                element.set(key, element.attrib[key].replace(found[1], identity))
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in new:
            element.set("id", new[old])


def _dark_rules(colours: set[str]) -> str:
    rules = [
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in COLOURS.values()
        if light in colours
        for part in ("fill", "stroke")
    ]
    return f"{DARK_SCREEN}{{{''.join(rules)}}}"


def _two_decimals(number: re.Match[str]) -> str:
    """Round to hundredths such that a difference in the sixth decimal does not show.

    A coordinate that lies just between two hundredths (a fixed layout makes many) may come out a
    millionth lower on another processor; the 3 added to its millionths rounds both up.
    """
    value = float(number[0])
    hundredths = (round(abs(value) * 1e6) + 5003) // 10000
    text = f"{hundredths // 100}.{hundredths % 100:02d}".rstrip("0").rstrip(".")
    return "-" + text if value < 0 and hundredths else text


def markdown_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]
) -> str:
    """A Markdown table as GitHub renders it.

    Args:
        headers: texts that Markdown may still interpret; see `escape_markdown`.
        rows: likewise, as many cells in each as there are headers.
        align: "left" or "right" for each column.
    """
    return str(tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True))


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it stands."""
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", text)
