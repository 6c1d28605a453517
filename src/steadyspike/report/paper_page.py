"""The page that joins all pipelines: the paper's tables and figures, run again."""

from collections.abc import Sequence

from steadyspike.report.cells import cells
from steadyspike.report.figure import Figure
from steadyspike.report.markup import card_of_figure, card_of_table, sentences
from steadyspike.report.page import (
    MEASURES,
    definitions,
    document,
    fact,
    masthead,
    section,
)
from steadyspike.report.paper import dataset_name, paper
from steadyspike.report.reproduction import Reproduction
from steadyspike.report.tables import Table, fixed, signed

_SECTIONS = (
    ("table1", "Table 1", "Table 1: accuracy"),
    ("firing", "Table 2 and Figure 2b", "Table 2 and Figure 2b: firing rates"),
    ("table4", "Table 4", "Table 4: the ablation"),
    ("memory", "Figure 2a", "Figure 2a: training memory"),
    ("membranes", "Figure 3", "Figure 3: membrane potentials"),
    ("appendix", "Appendix E", "Appendix E: other choices"),
    ("measures", "How it was measured", "How each number was measured"),
)


def paper_page(work: Reproduction, tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """The whole page, with tables and figures found by their names."""
    table = {entry.name: entry for entry in tables}
    figure = {entry.name: entry for entry in figures}
    inks = {cell.run: cell.method.ink for cell in cells()}
    parts = {
        "table1": [
            sentences(accuracies(work, "table1")),
            card_of_table(table["table1"], inks, groups=["dataset"], quoted=("source", "last")),
        ],
        "firing": [
            card_of_table(table["table2"], inks, quoted=("source", "ours")),
            card_of_figure(figure["figure2b"]),
            card_of_table(table["figure2b"], inks),
        ],
        "table4": [
            sentences([*accuracies(work, "table4"), *order(work)]),
            card_of_table(table["table4"], inks, groups=["dataset", "network"]),
        ],
        "memory": [
            card_of_figure(figure["figure2a"]),
            card_of_table(table["figure2a"], {}),
        ],
        "membranes": [card_of_figure(figure["figure3"])],
        "appendix": [card_of_table(table["appendix_e"], inks)],
        "measures": [definitions(MEASURES)],
    }
    sections = [section(key, title, *parts[key]) for key, _, title in _SECTIONS]
    title = f"{paper()['paper']['title']}: every table and figure, run again"
    return document(title, _header(work), sections)


def _header(work: Reproduction) -> str:
    own = cells()
    datasets = {name: [c for c in own if c.pipeline == name] for name in work.pipelines}
    done = sum(work.done(cell) for cell in own)
    facts = [fact("Cells run", f"{done} of {len(own)}")]
    facts += [
        fact(dataset_name(name), f"{sum(work.done(cell) for cell in part)} of {len(part)}")
        for name, part in datasets.items()
    ]
    return masthead(
        "The paper's tables and figures, run again",
        "Each of the paper's own numbers beside what this repository measured for it. A cell that "
        "has not been run says so, and below its table stands the command that trains, evaluates "
        "and reports it, to be given in the repository's folder.",
        [(key, text) for key, text, _ in _SECTIONS],
        facts,
    )


def accuracies(work: Reproduction, place: str) -> list[str]:
    """How far the best epochs lie from the paper's numbers."""
    own = [cell for cell in cells() if cell.place == place]
    pairs = [
        (cell, points)
        for cell in own
        if isinstance(points := work.measured(cell).against(cell.paper["accuracy"]), float)
    ]
    if not pairs:
        return []
    lead = f"{len(pairs)} of the paper's {len(own)} own cells have been run."
    values = [points for _, points in pairs]
    if len(values) == 1:
        return [lead, f"It differs from the paper by {_points(values[0])} points."]
    return [
        lead,
        f"They differ from the paper by {_points(min(values))} to {_points(max(values))} points, "
        f"on average by {_points(sum(values) / len(values))}.",
    ]


def order(work: Reproduction) -> list[str]:
    """Whether methods rank here as in Table 4, for each setting of which several were run."""
    settings: dict[str, list[tuple[str, float, float]]] = {}
    for cell in cells():
        if cell.place != "table4" or cell.paper.get("source"):
            continue
        points = work.measured(cell).against(cell.paper["accuracy"])
        if isinstance(points, float):
            setting = f"{dataset_name(cell.paper['dataset'])}, {cell.paper['architecture']}"
            there = cell.paper["accuracy"]
            here = round(there + points, 2)
            settings.setdefault(setting, []).append((cell.method.label, there, here))
    told = []
    for setting, found in settings.items():
        if len(found) > 1 and len({here for _, _, here in found}) == len(found):
            there_order = [label for label, _, _ in sorted(found, key=lambda entry: entry[1])]
            here_order = [label for label, _, _ in sorted(found, key=lambda entry: entry[2])]
            verdict = "the same" if here_order == there_order else " < ".join(here_order)
            told.append(
                f"The paper's order on {setting} is {' < '.join(there_order)}; here it is "
                f"{verdict}."
            )
    return told


def _points(value: float) -> str:
    return signed(fixed(value, 2))
