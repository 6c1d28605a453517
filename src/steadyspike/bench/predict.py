"""`steadyspike bench --predict`: what a GPU's step moves and computes, counted without one."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from steadyspike.bench.options import Options
from steadyspike.evaluate.traffic import Batch, count_batch
from steadyspike.files import write_atomically
from steadyspike.models import build
from steadyspike.report.tables import Column, Table, Value

FILE = "bench-gpu-predicted.md"
#: Bytes a second, and floating-point operations a second of dense products, by NVIDIA's data sheets
#: (SXM, no sparsity). Float32 products run as TF32.
GPUS = {
    "H100": (3.35e12, {"float32": 494.7e12, "bfloat16": 989.4e12}),
    "H200": (4.8e12, {"float32": 494.7e12, "bfloat16": 989.4e12}),
}


def predict(options: Options) -> Path:
    """Count every setting of ``options``, write the page to their folder and print it."""
    page = text(list(counted(options)), options)
    path = options.out / FILE
    write_atomically(path, page)
    print(page)
    return path


Row = tuple[str, str, int, bool, Batch]


def counted(options: Options) -> Iterator[Row]:
    """Network, precision, K, whether fused, and the counts."""
    channels = options.image[0]
    for name in options.models:
        more = {"widths": options.widths} if options.widths and name == "vggsnn" else {}
        model = build(
            name,
            in_channels=channels,
            num_classes=10,
            norm=options.norms[0],
            stabilize_threshold=options.stabilize[0],
            **more,
        )
        chunks = [chunk for chunk in options.chunks if chunk <= options.steps[0]] or [1]
        for precision, chunk, fused in product(options.precisions, chunks, (True, False)):
            frames = (options.batches[0], *options.image)
            batch = count_batch(
                model,
                frames,
                steps=options.steps[0],
                chunk=chunk,
                precision=precision,
                fused=fused,
                still=True,
            )
            yield name, precision, chunk, fused, batch


def text(rows: list[Row], options: Options) -> str:
    """The page as Markdown."""
    image = "×".join(map(str, options.image))
    lines = [
        "# What a step moves and computes on a GPU",
        "",
        "Counted by `steadyspike bench --predict`, not measured: the training code runs on tensors "
        "without values, and each operation counts what it reads and writes, once. Still images, "
        f"{image}, T {options.steps[0]}, batch {options.batches[0]}, OTS "
        f"{'on' if options.stabilize[0] else 'off'}. Launches are not counted, nor caches, which "
        "make small layers faster; convolutions take at least the longer of moving and computing, "
        "and float32 is TF32 here. Real ones reach a part of the data sheet's throughput, which "
        "makes the last column smaller.",
        "",
        counts(rows).to_markdown().replace("# ", "## ", 1),
    ]
    for name in GPUS:
        lines.append(times(rows, name).to_markdown().replace("# ", "## ", 1))
    return "\n".join(lines)


def counts(rows: list[Row]) -> Table:
    """Bytes and operations."""
    columns = (
        *_setting_columns(),
        Column("outside", "Outside convolutions, GB", 2),
        Column("kernels", "of it in fused kernels, GB", 2),
        Column("arithmetic", "Operations outside, billions", 1),
        Column("synapses", "Convolutions, GB", 2),
        Column("flops", "Convolutions, TFLOP", 3),
    )
    cells: list[list[Value]] = [
        [
            *_setting(row),
            row[4].outside.bytes / 1e9,
            sum(kernel.bytes for kernel in row[4].kernels.values()) / 1e9,
            row[4].outside.operations / 1e9,
            sum(moved for moved, _ in row[4].synapses) / 1e9,
            row[4].flops / 1e12,
        ]
        for row in rows
    ]
    return Table("predicted-counts", "Counts", columns, cells)


def times(rows: list[Row], gpu: str) -> Table:
    """The least times by a GPU's data sheet."""
    bandwidth, throughput = GPUS[gpu]
    columns = (
        *_setting_columns(),
        Column("outside", "Outside convolutions, ms", 2),
        Column("synapses", "Convolutions at least, ms", 2),
        Column("step", "Step of its convolutions", 2),
    )
    cells: list[list[Value]] = [
        [
            *_setting(row),
            1e3 * row[4].outside_seconds(bandwidth),
            1e3 * row[4].synapse_seconds(bandwidth, throughput[row[1]]),
            1 + row[4].ratio(bandwidth, throughput[row[1]]),
        ]
        for row in rows
    ]
    return Table(f"predicted-{gpu}", gpu, columns, cells)


def _setting_columns() -> tuple[Column, ...]:
    return Column("model", "Network"), Column("precision", "Precision"), Column("path", "Path")


def _setting(row: Row) -> list[Value]:
    model, precision, chunk, fused, _ = row
    return [model, precision, f"{'fused' if fused else 'plain torch'}, K {chunk}"]
