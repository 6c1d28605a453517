"""Tables, figures and a page from measurements; the same measurements give the same bytes."""

from steadyspike.report.crate import write_crate
from steadyspike.report.listing import list_cells
from steadyspike.report.write import write_paper_report, write_report

__all__ = ["list_cells", "write_crate", "write_paper_report", "write_report"]
