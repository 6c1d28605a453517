"""Check on this machine's GPU that training is right, how fast it is and what CIFAR-10 gives.

Writes <date>-<gpu>-<commit>.json and .md to --out after every row. Each part runs in a process of
its own with a time limit; one that fails or runs over is recorded, and the others go on. Needs
torch, no network and no installation. The exit status is 1 if something that must hold does not.
See docs/gpu.md.
"""

import argparse
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from process import run_part
from record import (
    PARAMS,
    REPOSITORY,
    Part,
    Record,
    Row,
    commit,
    query_gpu,
    read_record,
    text_line,
)

from steadyspike.cli import positive
from steadyspike.errors import UserError
from steadyspike.train.params import read_params

#: Title on the page, and the limit in seconds.
PARTS = {
    "environment": ("Environment", 60),
    "tests": ("Tests that need a GPU", 150),
    "bits": ("The same bits, eager and as a CUDA graph", 120),
    "steps": ("Training steps of VGGSNN, 3×32×32, batch 128", 150),
    "loop": ("The training loop on images in the GPU's memory", 60),
    "peers": ("Beside other libraries", 240),
    "cifar10": ("CIFAR-10", 540),
}
REHEARSAL = 300  # seconds for any part: machines that only rehearse may be busy
TITLES = {name: title for name, (title, _) in PARTS.items()}


def main(arguments: list[str]) -> int:
    try:
        args = _parser().parse_args(arguments)
        record, path = _record(args)
        return _run(args, record, path)
    except UserError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:  # a folder that cannot be made, for example
        print(f"gpu_check: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see python {self.prog} --help)")


def _parser() -> Parser:
    command = Parser(
        prog="tools/gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add(
        "parts",
        nargs="*",
        metavar="PART",
        type=_part,
        help=f"of {', '.join(PARTS)} (default: all)",
    )
    add("--rehearse", action="store_true", help="tiny sizes on a CPU, in a minute or two")
    add(
        "--limit",
        action="append",
        default=[],
        metavar="[PART=]SECONDS",
        type=_limit,
        help="time limit of a part; without PART, of the whole",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="the folder to write (default: docs/runs; of a rehearsal, the folder of --logs)",
    )
    add("--merge", type=Path, metavar="JSON", help="add to this file of an earlier call")
    add(
        "--images",
        type=_folder,
        metavar="FOLDER",
        help="CIFAR-10 as {train,test}/<class>/*.png (default: datasets/cifar10, in any form)",
    )
    add(
        "--epochs",
        type=positive,
        metavar="N",
        default=60,
        help="of each CIFAR-10 experiment (default: 60)",
    )
    add(
        "--experiments",
        type=_experiments,
        default=("vggsnn-osr_ots", "vggsnn-osr", "vggsnn-per_step", "vggsnn-bptt"),
        metavar="LIST",
        help="of pipelines/cifar10, separated by commas, in the order of training "
        "(default: vggsnn-osr_ots, -osr, -per_step, -bptt)",
    )
    add(
        "--precision",
        default="bfloat16",
        choices=("bfloat16", "tf32", "float32"),
        help="of CIFAR-10 (default: bfloat16)",
    )
    add(
        "--logs",
        type=Path,
        default=REPOSITORY / "runs" / "gpu_check",
        metavar="DIR",
        help="what the parts print (default: runs/gpu_check)",
    )
    return command


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PARTS)}, got {text!r}")
    return text


def _limit(text: str) -> tuple[str, float]:
    name, _, seconds = text.rpartition("=")
    if name not in ("", *PARTS) or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", seconds):
        raise argparse.ArgumentTypeError(f"expected PART=SECONDS or SECONDS, got {text!r}")
    return name, float(seconds)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, got {text!r}")
    return Path(text)


def _experiments(text: str) -> tuple[str, ...]:
    known = read_params(PARAMS)
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            message = f"expected some of {','.join(known)}, got {name!r}"
            raise argparse.ArgumentTypeError(message)
    return names


def _record(args: argparse.Namespace) -> tuple[Record, Path]:
    """A new record, or the one to add to, and its file."""
    device = "CPU, a rehearsal" if args.rehearse else query_gpu("name")["name"]
    now = datetime.now(UTC)
    record = Record(now.isoformat(timespec="seconds"), device, commit())
    if args.merge is not None:
        earlier = read_record(args.merge)
        for key in ("device", "commit"):
            ours, theirs = getattr(record, key), getattr(earlier, key)
            if ours != theirs:
                raise UserError(f"{args.merge}: {key}: expected {ours!r}, found {theirs!r}")
        record = earlier
    name = re.sub(r"[^a-z0-9]+", "-", device.removeprefix("NVIDIA ").lower()).strip("-")
    folder = args.out or (args.logs if args.rehearse else REPOSITORY / "docs" / "runs")
    return record, folder / f"{record.date[:10]}-{name}-{record.commit}.json"


def _run(args: argparse.Namespace, record: Record, path: Path) -> int:
    args.logs.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    limits = dict(args.limit)
    names = list(dict.fromkeys(args.parts)) or list(PARTS)
    for name in names:
        limit = limits.get(name, REHEARSAL if args.rehearse else PARTS[name][1])
        if "" in limits:
            limit = min(limit, limits[""] - (time.monotonic() - began))
        part = Part(datetime.now(UTC).isoformat(timespec="seconds"))
        if name == "cifar10" and name in record.parts:  # other experiments are added
            part.rows = record.parts[name].rows
        record.parts[name] = part
        record.parts = {key: record.parts[key] for key in PARTS if key in record.parts}
        record.save(path, TITLES)
        if limit < 1:
            part.state = "not run: no time was left"
        else:
            options = {
                "rehearse": args.rehearse,
                "seconds": limit,
                "work": str(args.logs.resolve()),
                "epochs": args.epochs,
                "images": None if args.images is None else str(args.images.resolve()),
                "experiments": args.experiments,
                "precision": args.precision,
            }

            def show(row: Row, name: str = name) -> None:
                if row.ended:
                    at = f"{time.monotonic() - began:4.0f} s "
                    print(at + text_line(name, row), file=sys.stderr, flush=True)
                record.save(path, TITLES)

            run_part(name, options, part, args.logs / f"{name}.log", show)
            if part.state != "done":
                print(f"{name:11} {part.state}", file=sys.stderr, flush=True)
        record.save(path, TITLES)
    print(summary(record, names))
    print(f"{path}\n{path.with_suffix('.md')}")
    return 0 if all(record.parts[name].sound for name in names) else 1


def summary(record: Record, names: list[str]) -> str:
    """A short table: each part, what failed, and the targets."""
    lines = [f"{record.device}, commit {record.commit}"]
    for name in names:
        part = record.parts[name]
        failing = [row for row in part.rows if row.holds is False]
        state = f"{part.state}, {part.seconds:.0f} s, {len(part.rows)} rows"
        lines.append(
            f"{name:11} {state}, {len(failing)} failing" if failing else f"{name:11} {state}"
        )
        lines += [text_line("", row) for row in part.rows if row.holds is False or row.target]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
