"""Tables and figures as HTML."""

import re
from collections.abc import Mapping, Sequence
from html import escape

from steadyspike.report.figure import Figure
from steadyspike.report.svg import inline
from steadyspike.report.tables import Column, Table, Value


def prose(text: str) -> str:
    """A sentence as HTML; a number and its unit, or `T = 4`, stay on one line."""
    together = re.sub(r"(\d) (%|MB\b)|(\bT) = (?=\d)", _unbroken, text)
    return escape(together)


def _unbroken(found: re.Match[str]) -> str:
    return found[0].replace(" ", "\u00a0")


def sentences(texts: Sequence[str]) -> str:
    """A list of findings; nothing if there are none."""
    items = "".join(f"<li>{prose(text)}</li>" for text in texts)
    return f'<ul class="findings">{items}</ul>' if items else ""


def card_of_table(
    table: Table,
    inks: Mapping[str, str],
    emphasize: str = "",
    groups: Sequence[str] = (),
    quoted: tuple[str, str] | None = None,
) -> str:
    """A table on its card.

    `inks` gives the colour of each experiment's method, shown before the first cell of its row;
    `emphasize` is the key of a column whose highest number is set in bold. The columns `groups`
    become headings over the rows that share them. `quoted` names the column of a row's source:
    such a row has it instead of all cells from the second named column on.
    """
    keys = [column.key for column in table.columns]
    hidden = [*groups, *(quoted[:1] if quoted else ())]
    places = [place for place, key in enumerate(keys) if key not in hidden]
    top = _highest(table, emphasize) if emphasize else None
    head = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.header)}</th>'
        for column in (table.columns[place] for place in places)
    )
    body = []
    heading = ""
    for row in table.rows:
        values = dict(zip(keys, row, strict=True))
        above = ", ".join(str(values[key]) for key in groups)
        if above != heading:
            heading = above
            body.append(
                f'<tr class="group"><th scope="rowgroup" colspan="{len(places)}">'
                f"{_whole(heading)}</th></tr>"
            )
        source = values[quoted[0]] if quoted else ""
        cells: list[str] = []
        for place in places:
            column, value = table.columns[place], row[place]
            if quoted and source and column.key == quoted[1]:
                rest = len(places) - len(cells)
                cells.append(f'<td colspan="{rest}">quoted from {escape(str(source))}</td>')
                break
            bold = column.key == emphasize and top is not None and column.text(value) == top
            cells.append(_cell(column, value, bold))
        ink = inks.get(str(values.get("experiment")))
        swatch = f'<span class="swatch" style="background:var(--{ink})"></span>' if ink else ""
        first = _whole(table.columns[places[0]].text(row[places[0]]))
        cells[0] = f'<th scope="row">{swatch}{first}</th>'
        kind = ' class="quoted"' if source else ""
        body.append(f"<tr{kind}>{''.join(cells)}</tr>")
    notes = "".join(f'<p class="note">{prose(note)}</p>' for note in table.notes)
    notes += "".join(f'<p class="caveat">{prose(caveat)}</p>' for caveat in table.caveats)
    return (
        f'<div class="card"><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(table.title)}">\n<table>\n<caption><span>{escape(table.title)}</span></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(body)}\n</tbody>\n</table></div>\n"
        f"{notes}{_commands(table.commands)}"
        f"{_files([f'{table.name}.{kind}' for kind in ('csv', 'json', 'md')])}</div>"
    )


def card_of_figure(figure: Figure) -> str:
    """A figure on its card: what it is, how to read it, what it shows, the drawing, its data."""
    return (
        f'<figure class="card{" wide" if figure.wide else " side"}">\n'
        f"<figcaption><h3>{escape(figure.title)}</h3><p>{prose(figure.reading)}</p>"
        f"{sentences(figure.findings)}</figcaption>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(figure.title)}">\n'
        f"{inline(figure.svg)}</div>\n{_commands(figure.commands)}"
        f"{_files([f'{figure.name}.svg', *(f'{data.name}.csv' for data in figure.data)])}</figure>"
    )


def _highest(table: Table, key: str) -> str | None:
    column = next(column for column in table.columns if column.key == key)
    numbers = [value for value in table.column(key) if isinstance(value, int | float)]
    return column.text(max(numbers)) if numbers else None


def _cell(column: Column, value: Value, bold: bool) -> str:
    text = _whole(column.text(value))
    if column.code and value:
        text = f"<code>{escape(column.text(value))}</code>"
    return f"<td{_class(column, value, bold)}>{text}</td>"


def _whole(text: str) -> str:
    """Text as HTML, its words with a hyphen (SEW-ResNet-34) never broken."""
    return re.sub(r"[\w+]+(?:-[\w+]+)+", r'<span class="whole">\g<0></span>', escape(text))


def _class(column: Column, value: Value = 0, bold: bool = False) -> str:
    words = ["number"] if column.numeric else []
    if column.numeric and isinstance(value, str):
        words.append("absent")
    if bold:
        words.append("top")
    return f' class="{" ".join(words)}"' if words else ""


def _commands(commands: Sequence[str]) -> str:
    if not commands:
        return ""
    lines = "\n".join(escape(command) for command in commands)
    return (
        '<p class="note">To fill in what was not run:</p>'
        f'<pre class="commands"><code>{lines}</code></pre>'
    )


def _files(names: Sequence[str]) -> str:
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in names)
    return f'<p class="files">Files: {links}</p>\n'
