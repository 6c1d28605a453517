"""The page: everything of a report in one file that needs no other."""

from collections.abc import Sequence, Set
from html import escape
from importlib.resources import files

from steadyspike.report import findings, theme
from steadyspike.report.figure import Figure
from steadyspike.report.markup import card_of_figure, card_of_table, sentences
from steadyspike.report.paper import architecture_name, dataset_name, paper
from steadyspike.report.sources import Pipeline, Run
from steadyspike.report.tables import NOT_RUN, Table, fixed

MEASURES = (
    (
        "Accuracy",
        "The share of test images whose label is the class with the largest sum of outputs over "
        "the T time steps. The last epoch's weights give the headline; the best epoch is chosen "
        "on the test images themselves and so flatters a little.",
    ),
    (
        "Firing rate",
        "Spikes divided by the chances to spike: neurons times time steps times test images, over "
        "all spiking layers, with the last epoch's weights.",
    ),
    (
        "Memory",
        "The bytes that automatic differentiation keeps for the backward pass of one batch, "
        "counted tensor by tensor rather than asked of an allocator, so that the number is the "
        "same on every machine. 1 MB is 1,000,000 bytes.",
    ),
    (
        "Membrane potential",
        "Taken before the reset, on the test images, and counted in bins of equal width; what "
        "falls outside the range is counted apart and is in the figure's data.",
    ),
    (
        "OSR fallbacks",
        "How often, over all of training, a layer at one time step used that step's own "
        "statistics because its running statistics were too far off.",
    ),
    (
        "Weights SHA-256",
        "A fingerprint of the last epoch's weights. Who repeats an experiment and finds this "
        "fingerprint has the same network, bit for bit.",
    ),
)


def page(pipeline: Pipeline, tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """The whole page, with `tables` (table4, table2) and `figures` by their names.

    There is no section about memory without figure2a.
    """
    table = {entry.name: entry for entry in tables}
    figure = {entry.name: entry for entry in figures}
    inks = {run.name: run.method.ink for run in pipeline.runs}
    groups = ["network"] if len(pipeline.networks) > 1 else []
    sections = [
        section(
            "accuracy",
            "Accuracy",
            sentences(findings.each_network(findings.accuracy, pipeline)),
            card_of_table(table["table4"], inks, emphasize="accuracy_last", groups=groups),
        ),
        section(
            "firing",
            "Firing rates",
            sentences(findings.each_network(findings.gross_rates, pipeline)),
            card_of_table(table["table2"], inks, groups=groups),
            card_of_figure(figure["figure2b"]),
        ),
        section("memory", "Training memory", card_of_figure(figure["figure2a"]))
        if "figure2a" in figure
        else "",
        section("membranes", "Membrane potentials", card_of_figure(figure["figure3"])),
        section("training", "Training", card_of_figure(figure["training"])),
        section(
            "experiments",
            "Experiments",
            "<p>What each experiment left behind, and the command that runs it again. Run a "
            "command in the folder of this pipeline's <code>params.yaml</code>.</p>",
            '<div class="runs">' + "\n".join(_run(run) for run in pipeline.runs) + "</div>",
        ),
        section("measures", "How each number was measured", definitions(MEASURES)),
    ]
    title = f"{paper()['paper']['title']}: reproduction report"
    return document(title, _header(pipeline, figure.keys() | table.keys()), sections)


def document(title: str, header: str, sections: Sequence[str]) -> str:
    """A whole HTML page of these parts, self-contained."""
    css = files("steadyspike.report").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{theme.page_css()}{css}</style>
</head>
<body>
<a class="skip" href="#results">Skip to the results</a>
{header}
<main id="results">
{"".join(sections)}</main>
<footer><p>Made by steadyspike from measurements alone: the same measurements give this page
byte for byte. A number that was not measured is not shown; none is filled in from the
paper.</p></footer>
</body>
</html>
"""


def _header(pipeline: Pipeline, names: Set[str]) -> str:
    measured = sum(run.metrics is not None for run in pipeline.runs)
    facts = [
        ("Data set", findings.listed([dataset_name(n) for n in pipeline.settings("dataset.name")])),
        (
            "Network",
            findings.listed([architecture_name(n) for n in pipeline.settings("model.name")]),
        ),
        ("Parameters", _parameters(pipeline)),
        ("Time steps T", _several(pipeline, "training.steps")),
        ("Epochs", _several(pipeline, "training.epochs")),
        ("Batch", _several(pipeline, "training.batch")),
        ("Experiments run", f"{measured} of {len(pipeline.runs)}"),
    ]
    cells = [fact(key, value) for key, value in facts]
    widths = [layers for layers in pipeline.settings("model.widths") if layers]
    if widths:
        text = "; ".join(" – ".join(str(width) for width in layers) for layers in widths)
        cells.append(
            '<div class="wide"><dt>Layer widths (P: average pooling)</dt>'
            f"<dd>{escape(text)}</dd></div>"
        )
    links = [
        ("accuracy", "Accuracy"),
        ("firing", "Firing rates"),
        *([("memory", "Training memory")] if "figure2a" in names else []),
        ("membranes", "Membrane potentials"),
        ("training", "Training"),
        ("experiments", "Experiments"),
        ("measures", "How it was measured"),
    ]
    return masthead(
        "Reproduction report",
        "Spiking neural networks trained online, one time step at a time. Two parts keep them "
        "steady: a normalization by statistics of all time (OSR) and a threshold that holds the "
        "firing rate (OTS). This page shows what was measured of each method, beside what the "
        "paper reports.",
        links,
        cells,
    )


def masthead(
    eyebrow: str, lede: str, links: Sequence[tuple[str, str]], facts: Sequence[str]
) -> str:
    """The head of a page: the paper, what the page is, a menu and boxes of facts (HTML)."""
    source = paper()["paper"]
    menu = "".join(f'<li><a href="#{key}">{text}</a></li>' for key, text in links)
    return f"""<header>
<p class="eyebrow">{escape(eyebrow)}</p>
<h1>{escape(source["title"])}</h1>
<p class="byline">The paper: {escape(source["authors"])}, {escape(source["venue"])}.
<a href="{escape(source["link"])}">Read it on OpenReview</a> or see
<a href="{escape(source["code"])}">its authors&#x27; code</a>.</p>
<p class="lede">{escape(lede)}</p>
<nav aria-label="Sections"><ul>{menu}</ul></nav>
<dl class="facts">
{"".join(facts)}
</dl>
</header>"""


def section(key: str, title: str, *parts: str) -> str:
    """A section of a page; empty parts are left out."""
    body = "\n".join(filter(None, parts))
    return (
        f'<section id="{key}" aria-labelledby="{key}-heading">\n'
        f'<h2 id="{key}-heading">{escape(title)}</h2>\n{body}\n</section>\n'
    )


def fact(key: str, value: str) -> str:
    """One box of a page's facts."""
    return f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>"


def _several(pipeline: Pipeline, key: str) -> str:
    return findings.listed([str(value) for value in pipeline.settings(key)])


def _parameters(pipeline: Pipeline) -> str:
    counts = sorted({run.metrics.parameters for run in pipeline.runs if run.metrics})
    return findings.listed([f"{count:,}" for count in counts]) or NOT_RUN


def _run(run: Run) -> str:
    swatch = f'<span class="swatch" style="background:var(--{run.method.ink})"></span>'
    facts: list[tuple[str, str]] = [("Method", escape(run.method.label))]
    stacked: list[tuple[str, str]] = []
    metrics = run.metrics
    if metrics is None:
        facts.append(("Results", f'<span class="absent">{NOT_RUN}</span>'))
    else:
        facts += [
            ("Accuracy, last epoch", f"{fixed(metrics.accuracy.last, 2)} %"),
            (
                "Accuracy, best epoch",
                f"{fixed(metrics.accuracy.best, 2)} % (epoch {metrics.accuracy.best_epoch})",
            ),
            ("Loss, training", fixed(metrics.loss.train, 4)),
            ("Loss, test", fixed(metrics.loss.test, 4)),
            ("Parameters", f"{metrics.parameters:,}"),
            ("OSR fallbacks", f"{metrics.osr_fallbacks:,}"),
        ]
    if run.digests is not None:
        stacked.append(("Weights SHA-256", f"<code>{run.digests.weights_sha256}</code>"))
    stacked.append(("Command", f"<code>{escape(run.command)}</code>"))
    rows = [f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in facts]
    rows += [f'<div class="stack"><dt>{key}</dt><dd>{value}</dd></div>' for key, value in stacked]
    return (
        f'<article class="card"><h3>{swatch}<code>{escape(run.name)}</code></h3>'
        f"<dl>{''.join(rows)}</dl></article>"
    )


def definitions(measures: Sequence[tuple[str, str]]) -> str:
    """A card that explains each number."""
    entries = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in measures)
    return f'<div class="card"><dl class="measures">{entries}</dl></div>'
