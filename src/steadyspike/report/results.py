"""What was measured, beside what the paper reports: for one pipeline or the whole paper."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import Measurement, Memory, Metrics
from steadyspike.report.layer_names import plain_name
from steadyspike.report.paper import Cell, cells, dataset_name, nearest_cell, own_cells
from steadyspike.report.published import Published, published
from steadyspike.report.runs import Pipeline, Run, read_pipeline

#: Where metrics.json has the accuracies by other ways to infer (Appendix E).
INFERENCE = {"fixed_threshold": "fixed", "batch_of_one": "batch_1"}


@dataclass(frozen=True)
class Row:
    """A row of a table or a line of a figure: an experiment, what the paper reports, or both.

    Attributes:
        run: the experiment; None if the paper quotes the row from other work, or if params.yaml has
            no experiment of the cell's data set, network and method.
        cell: the paper's cell, or the nearest to this experiment; None if there is none.
        name: the experiment's name, empty for a quoted row.
        command: runs the experiment.
        published: what another work reports of its method, by another protocol.
    """

    run: Run | None
    cell: Cell | None
    name: str = ""
    command: str = ""
    published: Published | None = None

    @property
    def comparable(self) -> bool:
        """Whether run and cell are of one data set, network and method."""
        return self.run is not None and self.cell is not None and self.cell.fits(self.run.settings)

    @property
    def metrics(self) -> Metrics | None:
        return self.run.metrics if self.run else None

    @property
    def by_seed(self) -> Mapping[str, Measurement]:
        """The measurement of each seed; none if not measured."""
        return self.metrics.by_seed(self.run.settings.seed) if self.run and self.metrics else {}

    def of_each_seed(self, number: Callable[[Measurement], float | None]) -> list[float]:
        """A number of each seed that has it; none if not measured."""
        found = map(number, self.by_seed.values())
        return [value for value in found if value is not None]

    @property
    def inference(self) -> str:
        """The key in `Metrics.inference` of a cell of another way to infer; empty for others."""
        return INFERENCE.get(self.cell.metric, "") if self.cell else ""

    @property
    def fewer_epochs(self) -> str:
        """`60 of 300 epochs` if it was trained for fewer than the paper trains; else empty."""
        if not self.comparable or self.run is None or self.cell is None or not self.run.metrics:
            return ""
        return fewer_epochs(self.run, self.cell)

    @property
    def quoted(self) -> bool:
        return self.cell is not None and self.cell.quoted is not None

    @property
    def dataset(self) -> str:
        if self.run is not None:
            return dataset_name(self.run.settings.dataset.name)
        return dataset_name(self.cell.dataset) if self.cell else ""

    @property
    def network(self) -> str:
        if self.run is not None:
            return self.run.network
        return self.cell.architecture if self.cell else ""

    @property
    def method(self) -> str:
        if self.run is not None:
            return self.run.method.label
        return self.cell.method_label if self.cell else ""


class Results:
    """The rows of every table and figure.

    Args:
        pipelines: those to report, by name.
        of_paper: whether rows are the paper's cells, else the experiments of the only pipeline.
    """

    def __init__(self, pipelines: dict[str, Pipeline], of_paper: bool) -> None:
        self.pipelines = pipelines
        self.of_paper = of_paper

    @classmethod
    def of_pipeline(cls, folder: Path) -> "Results":
        """Of the pipeline in this folder; UserError for anything malformed."""
        return cls({"": read_pipeline(folder)}, of_paper=False)

    @classmethod
    def of_all(cls, folder: Path) -> "Results":
        """Of every pipeline in `folder` that measures a cell of the paper; UserError likewise."""
        names = dict.fromkeys(cell.dataset for cell in own_cells())
        return cls({name: read_pipeline(folder / name) for name in names}, of_paper=True)

    @property
    def only(self) -> Pipeline:
        """The pipeline, where there is but one."""
        (pipeline,) = self.pipelines.values()
        return pipeline

    def rows(self, table: str) -> list[Row]:
        """Of a table or figure, by its key in paper.yaml.

        A pipeline's Tables 2 and 4 and Figure 2b have all of its experiments; elsewhere the rows
        are the paper's cells that it measures, and those quoted for its data sets.
        """
        if self.of_paper:
            return [self._paper_row(cell) for cell in cells(table)]
        if table in ("table2", "table4", "figure2b"):
            return [
                Row(run, self._nearest(table, run), run.name, run.command) for run in self.only.runs
            ]
        rows = [self._paper_row(cell) for cell in cells(table)]
        datasets = {row.dataset for row in rows if row.comparable}
        return [row for row in rows if row.comparable or (row.quoted and row.dataset in datasets)]

    def _nearest(self, table: str, run: Run) -> Cell | None:
        """The paper's cell to set beside an experiment; None for one that the paper did not run."""
        cell = nearest_cell(table, run.settings)
        if cell is None or not run.added or run.name == cell.experiment:
            return cell
        return cell if cell.fits(run.settings) and not cell.differences(run.settings) else None

    def measured(self) -> list[Row]:
        """A row for each experiment that has been measured, in the order of the tables."""
        if not self.of_paper:
            rows = self.rows("table4")
        else:
            rows = list({row.name: row for row in map(self._paper_row, own_cells())}.values())
        return [row for row in rows if row.run is not None and row.run.metrics is not None]

    def published(self) -> list[Row]:
        """The experiments beside what others publish of their methods; none of the whole paper."""
        runs = () if self.of_paper else self.only.runs
        return [
            Row(run, None, run.name, run.command, found)
            for run in runs
            for found in published()
            if found.fits(run.settings)
        ]

    def find(self, cell: Cell) -> Run | None:
        """The experiment that is to measure a cell; None if params.yaml has none of its name."""
        pipeline = self.pipelines[cell.dataset] if self.of_paper else self.only
        return next((run for run in pipeline.runs if run.name == cell.experiment), None)

    def memory(self, cell: Cell) -> list[Memory]:
        """The points of a method in Figure 2a, by K and T; BPTT's K is T."""
        pipeline = self.pipelines[cell.dataset] if self.of_paper else self.only
        method = "online" if cell.method != "bptt" else "bptt"
        points = [point for point in pipeline.memory or () if point.method == method]
        return sorted(points, key=lambda point: (point.chunk, point.steps))

    def done(self, cell: Cell) -> bool:
        """Whether one of the paper's own cells has been measured."""
        run = self.find(cell)
        if run is None or not cell.fits(run.settings):
            return False
        match cell.metric:
            case "memory":
                return bool(self.memory(cell))
            case "membranes":
                return run.layers is not None
            case "fixed_threshold" | "batch_of_one":
                found = run.metrics and getattr(run.metrics.inference, INFERENCE[cell.metric])
                return found is not None
            case _:
                return run.metrics is not None

    def _paper_row(self, cell: Cell) -> Row:
        if cell.quoted:
            return Row(None, cell)
        run = self.find(cell)
        if run is not None and not cell.fits(run.settings):
            run = None
        if self.of_paper:
            return Row(run, cell, cell.run, cell.command)
        return Row(run, cell, cell.experiment, run.command if run else "")

    def check_current(self) -> None:
        """UserError if a run was trained with other parameters than params.yaml has now."""
        for pipeline in self.pipelines.values():
            for run in pipeline.runs:
                if run.outdated:
                    raise UserError(
                        f"{run.folder / 'digests.json'}: fingerprint: trained with other "
                        f"parameters than params.yaml has now: `dvc repro` trains anew, or remove "
                        f"{run.folder}"
                    )


def fewer_epochs(run: Run, cell: Cell) -> str:
    """`60 of 300 epochs` if the experiment trains for fewer than the paper does; else empty."""
    epochs = run.settings.training.epochs
    return f"{epochs} of {cell.epochs} epochs" if epochs < cell.epochs else ""


def held_out_notes(rows: Iterable[Row]) -> list[str]:
    """Where "test" does not mean the test images."""
    found = {row.run.settings.dataset.validation or 0 for row in rows if row.run} - {0}
    if not found:
        return []
    counts = ", ".join(f"{count:,}" for count in sorted(found))
    return [
        f"Measured on the last {counts} training images, which no experiment was trained on "
        "(dataset.validation): they stand for the test images, which were not used."
    ]


def difference_notes(rows: Iterable[Row]) -> list[str]:
    """Where experiments differ from the setting of the paper's cell beside them."""
    notes = []
    for row in rows:
        if row.run is None and not row.quoted:
            notes.append(
                f"{row.name}: params.yaml has no experiment of this name with the paper's data "
                "set, network and method."
            )
        elif row.run is not None and row.cell is not None and row.comparable:
            differences = row.cell.differences(row.run.settings)
            if differences:
                notes.append(f"{row.name} differs from the paper: {', '.join(differences)}.")
    return notes


def published_notes(rows: Iterable[Row]) -> list[str]:
    """Where experiments differ from the protocol of the published number beside them."""
    notes = []
    for row in rows:
        if row.run is not None and row.published is not None:
            work, found = row.published, row.published.differences(row.run.settings)
            whose = f"{row.name} differs from {work.work} ({work.source})"
            listed = ", ".join(found) or "nowhere that is known"
            notes.append(f"{whose}: {listed}. {work.note}".rstrip())
    return notes


def health_notes(rows: Iterable[Row]) -> list[str]:
    """Layers that fell silent or exploded in training, of every seed."""
    notes = []
    for row in rows:
        if row.run is None:
            continue
        for seed, history in row.run.histories.items():
            who = row.name if seed == row.run.settings.seed else f"{row.name}, seed {seed}"
            for what, key in (
                ("silent layers (no spike in a whole epoch of training)", "silent_layers"),
                ("exploding layers (running variance over 1,000,000)", "exploding_layers"),
            ):
                epochs = [epoch.epoch for epoch in history if getattr(epoch, key)]
                names = dict.fromkeys(
                    plain_name(name, row.run.settings.model)
                    for epoch in history
                    for name in getattr(epoch, key)
                )
                if epochs:
                    notes.append(f"{who}: {what} in {_ranges(epochs)}: {_first(list(names), 6)}.")
    return notes


def _ranges(epochs: Sequence[int]) -> str:
    """Rising numbers as `epochs 1, 3–5, 9`."""
    parts: list[list[int]] = []
    for epoch in epochs:
        if parts and epoch == parts[-1][-1] + 1:
            parts[-1].append(epoch)
        else:
            parts.append([epoch])
    texts = [str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts]
    return f"{'epoch' if len(epochs) == 1 else 'epochs'} {', '.join(texts)}"


def _first(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
