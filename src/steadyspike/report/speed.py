"""How fast each experiment trains and what it keeps, from `steadyspike bench --experiments`."""

from statistics import median

from steadyspike.bench.tables import MEGABYTE, ratio, where
from steadyspike.pins import CPU_PINS
from steadyspike.report.comparison import baseline_of
from steadyspike.report.results import Results
from steadyspike.report.table import Column, Table


def speed_table(results: Results) -> Table | None:
    """None for the joined report of the paper, and where nothing was measured."""
    if results.of_paper or results.only.speed is None:
        return None
    bench = results.only.speed
    runs = {run.name: run for run in results.only.runs}
    measured = [
        (runs[each.experiment], each) for each in bench.experiments if each.experiment in runs
    ]
    method = baseline_of(results)
    baseline = next((each for run, each in measured if run.method.key == method.key), None)
    rows = [
        [
            run.method.label,
            "each step" if run.settings.training.online_update else "each batch",
            run.name,
            median(each.seconds) * each.batches,
            1000 * median(each.seconds),
            ratio(each.seconds, baseline.seconds) if baseline else "",
            each.kept_bytes / MEGABYTE,
        ]
        for run, each in measured
    ]
    return Table(
        name="speed",
        title="Time of training, and memory kept for the backward pass",
        columns=[
            Column("method", "Method"),
            Column("update", "Update"),
            Column("experiment", "Experiment", code=True),
            Column("epoch", "Seconds an epoch", 1),
            Column("batch", "A batch, ms", 1),
            Column("ratio", f"Time × {method.label}’s"),
            Column("kept", "Kept for backward, MB", 2),
        ],
        rows=rows,
        notes=[
            f"{where(bench, int(CPU_PINS['OMP_NUM_THREADS']))}.",
            "Experiments took turns; a ratio is that of the medians, its range that of the turns. "
            "An epoch is its batches alone, without the evaluation. Of experiments that differ in "
            "what no time depends on, such as weight decay, one was measured.",
        ],
    )
