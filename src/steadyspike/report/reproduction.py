"""What all pipelines have measured of the paper's own cells."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from steadyspike.report.agreement import departures
from steadyspike.report.caveats import caveats
from steadyspike.report.cells import Cell, cells
from steadyspike.report.sources import Pipeline, Run, read_pipeline
from steadyspike.report.tables import NOT_MEASURED, NOT_RUN, Mean, Value


@dataclass(frozen=True)
class Measured:
    """A cell's measurement, as table cells: NOT_RUN where it has not been run.

    `last` and `best` are by the last and the best epoch's weights, in percent; for a cell without
    a best epoch `best` is NOT_MEASURED. `epochs` and `seeds` are those that were run.
    """

    last: Value = NOT_RUN
    best: Value = NOT_RUN
    seeds: Value = NOT_RUN
    epochs: Value = NOT_RUN

    @property
    def done(self) -> bool:
        return self.last != NOT_RUN

    def against(self, paper: float) -> Value:
        """Ours minus the paper's; of the best epoch if there is one, as the paper reports it."""
        value = self.last if self.best == NOT_MEASURED else self.best
        if isinstance(value, str):
            return value
        return round((value.value if isinstance(value, Mean) else value) - paper, 6)


class Reproduction:
    """All pipelines that measure cells of the paper, read from their folders.

    Raises UserError, naming file and key, for anything malformed; what has not been run is none.
    """

    def __init__(self, pipelines: Path) -> None:
        names = dict.fromkeys(cell.pipeline for cell in cells())
        self.pipelines: dict[str, Pipeline] = {
            name: read_pipeline(pipelines / name) for name in names
        }

    def run(self, cell: Cell) -> Run | None:
        """The experiment that measures a cell; None if params.yaml no longer has it."""
        runs = self.pipelines[cell.pipeline].runs
        return next((run for run in runs if run.name == cell.experiment), None)

    def measured(self, cell: Cell) -> Measured:
        """What there is of a cell."""
        run = self.run(cell)
        if run is None or run.metrics is None:
            return Measured()
        metrics = run.metrics
        seeds, epochs = len(metrics.seeds or "1"), len(run.history or ())
        match cell.metric:
            case "accuracy":
                each = list((metrics.seeds or {"": metrics.accuracy}).values())
                last = _mean([accuracy.last for accuracy in each])
                best = _mean([accuracy.best for accuracy in each])
                return Measured(last, best, seeds, epochs)
            case "fixed_threshold" | "batch_of_one":
                ways = metrics.inference
                value = ways.fixed if cell.metric == "fixed_threshold" else ways.batch_1
                return Measured() if value is None else Measured(value, NOT_MEASURED, 1, epochs)
            case _:
                return Measured(100 * metrics.firing_rate.gross, NOT_MEASURED, 1, epochs)

    def done(self, cell: Cell) -> bool:
        """Whether a cell has been run."""
        match cell.metric:
            case "memory":
                points = self.pipelines[cell.pipeline].memory or ()
                return any(point.method == cell.key for point in points)
            case "membranes":
                run = self.run(cell)
                return run is not None and run.membranes is not None
            case _:
                return self.measured(cell).done

    def missing(self, place: str) -> list[str]:
        """The commands that would run a table's or figure's other cells, each once."""
        return list(
            dict.fromkeys(c.command for c in cells() if c.place == place and not self.done(c))
        )

    def measured_runs(self, place: str | None = None) -> list[tuple[str, Run]]:
        """Names and experiments that the done cells (of a table or figure) were measured by."""
        found = {}
        for cell in cells():
            run = self.run(cell)
            if cell.metric != "memory" and place in (None, cell.place) and self.done(cell) and run:
                found[cell.run] = run
        return list(found.items())

    def remarks(self, place: str) -> list[str]:
        """Sentences about experiments that were run, but not as the paper has them."""
        done = {cell.run: cell for cell in cells() if cell.place == place and self.done(cell)}
        remarks = []
        for name, cell in done.items():
            differences = self._departures(cell)
            if differences:
                remarks.append(f"{name} is not as in the paper: {', '.join(differences)}.")
        return remarks

    def caveats(self, place: str) -> list[str]:
        """What a reader must know of a table's or figure's experiments to trust their numbers."""
        return caveats(self.measured_runs(place))

    def outdated(self, cell: Cell) -> bool:
        """Whether a cell was run with other parameters than params.yaml has now."""
        run = self.run(cell)
        if run is None or run.digests is None or cell.metric == "memory":
            return False
        return run.digests.fingerprint != run.settings.runs[0].fingerprint()

    def _departures(self, cell: Cell) -> list[str]:
        run = self.run(cell)
        differences = departures(cell, run.settings) if run is not None else []
        if cell.metric == "memory":  # of one batch, before any training
            differences = [d for d in differences if d.startswith(("model.", "training.batch "))]
        return differences


def _mean(values: list[float]) -> Mean:
    """With the sample standard deviation, which divides by n - 1."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Mean(statistics.fmean(values), deviation)
