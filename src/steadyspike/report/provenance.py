"""The table of what every number came from."""

from collections.abc import Sequence

from steadyspike.report.caveats import Named
from steadyspike.report.tables import Column, Table

_COLUMNS = (
    Column("method", "Method"),
    Column("experiment", "Experiment", code=True),
    Column("code", "Code that trained", code=True, sums=True),
    Column("evaluation_code", "Code that measured", code=True, sums=True),
    Column("data", "Data", code=True, sums=True),
    Column("params", "Parameters", code=True, sums=True),
    Column("environment", "Environment", code=True, sums=True),
)


def provenance(runs: Sequence[Named], whole_names: bool = False) -> list[Table]:
    """A row for each experiment that has been measured, if there is any.

    With `whole_names` an experiment is called as `runs` has it, else as in its pipeline.
    """
    rows = [
        [
            run.method.label,
            name if whole_names else run.name,
            " ".join(metrics.provenance.code),
            metrics.evaluation.code,
            metrics.provenance.data,
            metrics.provenance.params,
            " ".join(metrics.provenance.environment),
        ]
        for name, run in runs
        if (metrics := run.metrics) is not None
    ]
    if not rows:
        return []
    return [
        Table(
            name="provenance",
            title="SHA-256 sums of code, data, parameters and environment",
            columns=_COLUMNS,
            rows=rows,
            notes=[
                "Of the source files that trained and of those that measured; of the data set's "
                "images and labels; of the experiment's parameters; and of what else decides bits: "
                "versions of libraries, the device, the number of processes. Several in one cell "
                "took part one after the other, as where a run was resumed by changed code. CSV "
                "and JSON have all 64 digits, of which 12 are shown.",
            ],
        )
    ]
