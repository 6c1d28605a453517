"""The page: every table and figure of a report in one self-contained HTML file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from steadyspike.plotting import COLOURS, DARK_SCREEN
from steadyspike.report.claims import claims, summary
from steadyspike.report.figures import Figure
from steadyspike.report.methods import METHODS
from steadyspike.report.paper import architecture_name, dataset_name, own_cells, paper
from steadyspike.report.results import Results
from steadyspike.report.table import Column, Table, Value


@dataclass(frozen=True)
class Section:
    """A heading with tables and figures below; `key` is its anchor."""

    key: str
    title: str
    parts: Sequence[Table | Figure]


def page(results: Results, sections: Sequence[Section]) -> str:
    """The HTML text; sections without parts are left out."""
    environment = Environment(
        loader=PackageLoader("steadyspike.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = _unbroken
    environment.globals.update(
        is_figure=lambda part: isinstance(part, Figure), lines=_lines, columns=_columns
    )
    return environment.get_template("page.html.j2").render(
        paper=paper()["paper"],
        whole_paper=results.of_paper,
        facts=_facts(results),
        summary=summary(claims(results)),
        sections=[section for section in sections if section.parts],
        colours=Markup(_colours()),
        method_colours={
            method.label: method.colour
            for method in [
                *METHODS.values(),
                *(run.method for each in results.pipelines.values() for run in each.runs),
            ]
        },
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    """What was run, for the boxes at the top."""
    if results.of_paper:
        own = own_cells()
        names = list(dict.fromkeys(cell.dataset for cell in own))
        done = {name: [results.done(c) for c in own if c.dataset == name] for name in names}
        total = [each for part in done.values() for each in part]
        return [
            ("Results measured", f"{sum(total)} of {len(total)}"),
            *((dataset_name(name), f"{sum(part)} of {len(part)}") for name, part in done.items()),
        ]
    pipeline = results.only

    def values(key: str) -> str:
        return ", ".join(str(value) for value in pipeline.settings(key))

    measured = [run.metrics for run in pipeline.runs if run.metrics]
    sizes = sorted({metrics.parameters for metrics in measured})
    facts = [
        ("Data set", ", ".join(map(dataset_name, pipeline.settings("dataset.name")))),
        *_held_out(pipeline.settings("dataset.validation")),
        ("Network", ", ".join(map(architecture_name, pipeline.settings("model.name")))),
        ("Parameters", ", ".join(f"{size:,}" for size in sizes) or "not run"),
        ("Time steps T", values("training.steps")),
        ("Steps a call K", values("training.chunk")),
        ("Epochs", values("training.epochs")),
        ("Batch", values("training.batch")),
        ("Learning rate", f"{values('training.learning_rate')}, falling as a cosine to 0"),
        ("Seeds", "; ".join(", ".join(map(str, seeds)) for seeds in pipeline.seeds)),
        ("Experiments run", f"{len(measured)} of {len(pipeline.runs)}"),
        (
            "Optimizer",
            f"SGD, momentum {values('training.momentum')}, "
            f"weight decay {values('training.weight_decay')}",
        ),
    ]
    widths = [
        " – ".join(map(str, layers)) for layers in pipeline.settings("model.widths") if layers
    ]
    if widths:
        facts.append(("Layer widths (P: average pooling)", "; ".join(widths)))
    return facts


def _held_out(counts: Sequence[int | None]) -> list[tuple[str, str]]:
    """What is measured in place of the test images, if anything is."""
    held_out = [f"{count:,}" for count in counts if count]
    return [("Measured on", f"{', '.join(held_out)} training images, held out")] if held_out else []


def _columns(table: Table) -> list[Column]:
    """Those that the page shows: groups are headings, and a source stands beside the method."""
    return [column for column in table.columns if column.key not in (*table.groups, "source")]


def _lines(table: Table) -> list[dict[str, Any]]:
    """The table's rows for the template: a heading where the group changes, and the cells."""
    lines = []
    heading = ""
    for row in table.rows:
        values = {column.key: value for column, value in zip(table.columns, row, strict=True)}
        here = ", ".join(str(values[key]) for key in table.groups)
        cells = [
            {
                "text": column.text(values[column.key]),
                "class": _class(column, values[column.key]),
                "code": column.code,
            }
            for column in _columns(table)
        ]
        lines.append(
            {
                "heading": here if here != heading else "",
                "method": str(values.get("method", "")),
                "source": str(values.get("source", "")),
                "cells": cells,
            }
        )
        heading = here
    return lines


def _class(column: Column, value: Value) -> str:
    if not column.numeric:
        return ""
    return "number absent" if isinstance(value, str) else "number"


def _unbroken(text: str) -> Markup:
    """Text as HTML in which a name with a hyphen (SEW-ResNet-34) stays on one line."""
    return Markup(
        re.sub(r"[\w+]+(?:-[\w+]+)+", r'<span class="whole">\g<0></span>', str(escape(text)))
    )


def _colours() -> str:
    """The colours as custom properties of the style sheet, `--ink` and so on."""
    light = "".join(f"--{name}:{day};" for name, (day, _) in COLOURS.items())
    dark = "".join(f"--{name}:{night};" for name, (_, night) in COLOURS.items())
    return f":root{{{light}}}\n{DARK_SCREEN}{{:root{{{dark}}}}}\n"
