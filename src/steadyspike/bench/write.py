"""The files made of measurements: a page and figures for each device."""

from pathlib import Path

from steadyspike.bench.figures import figures
from steadyspike.bench.records import Bench, bench_file, load
from steadyspike.bench.tables import (
    comparison,
    groups,
    memory_curves,
    memory_table,
    notes,
    title,
    training_sentence,
    waiting_sentence,
    where,
)
from steadyspike.errors import UserError
from steadyspike.files import write_atomically


def render(folder: Path) -> list[Path]:
    """Write the page and figures of each device measured in the folder; returns their paths.

    Raises:
        UserError: the folder has no JSON file of measurements; nothing is written.
    """
    found = [b for device in ("cuda", "cpu") if (b := load(bench_file(folder, device)))]
    if not found:
        raise UserError(f"{folder}: no bench-*.json: run `steadyspike bench --out {folder}` first")
    files: dict[Path, str] = {}
    for bench in found:
        files[folder / f"bench-{bench.machine.device}.md"] = page(bench)
        files |= {folder / f"{figure.name}.svg": figure.svg for figure in figures(bench)}
    for path, text in files.items():
        write_atomically(path, text)
    return list(files)


def page(bench: Bench) -> str:
    """The Markdown page of one device."""
    images = [f"![{figure.title}]({figure.name}.svg)" for figure in figures(bench)]
    return "\n\n".join([tables(bench), *images]) + "\n"


def tables(bench: Bench) -> str:
    """The page without its figures."""
    parts = [
        f"# Measured on {bench.machine.gpu or bench.machine.processor}",
        where(bench, bench.measurements[0].setting.threads),
    ]
    for group in groups(bench):
        parts += [f"## {title(group)}", comparison(group, group)]
    for heading, field in (
        ("Peak memory", "peak_bytes"),
        ("Kept for the backward pass", "kept_bytes"),
    ):
        if curves := memory_curves(bench, field):
            parts += [f"## {heading} against T, MB", memory_table(curves)]
    if bench.waiting is not None:
        parts += ["## Waiting for data", waiting_sentence(bench.waiting)]
    if bench.training is not None:
        parts += ["## Training", training_sentence(bench.training)]
    if lines := notes(bench):
        parts += ["## Notes", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts)
