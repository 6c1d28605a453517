"""The options of `steadyspike bench`, and what a user can get wrong about them."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from steadyspike.errors import UserError

MODELS = ("vggsnn", "resnet19", "sew_resnet34", "nf_resnet34")
PRECISIONS = ("float32", "tf32", "bfloat16")
NORMS = ("osr", "per_step", "linear")
OTS = ("on", "off")

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What to measure, all of it checked; the lists are in the user's order, each value once."""

    models: tuple[str, ...]
    image: tuple[int, int, int]  # C, H, W
    widths: tuple[int | str, ...] | None  # of VGGSNN; None is the paper's
    steps: tuple[int, ...]
    chunks: tuple[int, ...]
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    norms: tuple[str, ...]
    stabilize: tuple[bool, ...]
    memory_steps: tuple[int, ...]
    device: str
    threads: int
    repeats: int
    turn_seconds: float
    peers: bool
    pinned: bool
    data: str | None
    out: Path
    readme: tuple[Path, ...]


def add_options(bench: argparse.ArgumentParser) -> None:
    """Declare the options; every list is told by commas. Defaults that depend on the device: None.

    Texts are checked by `options_of`, so that each mistake is told in one line.
    """
    lists = {
        "model": ("vggsnn", f"of {', '.join(MODELS)}"),
        "steps": ("4", "T, the time steps of a presentation"),
        "chunk": ("1,2,4", "K, the steps of one call; those above T are left out"),
        "batch": (None, "images (32; on a GPU 128)"),
        "precision": ("float32,bfloat16", f"of {', '.join(PRECISIONS)}; tf32 on a GPU"),
        "norm": ("osr", f"of {', '.join(NORMS)}"),
        "ots": ("on", "of on, off: with and without the threshold stabilizer"),
        "memory-steps": (
            None,
            "T of the curve of peak memory (2,8; on a GPU 2,8,30); or none",
        ),
    }
    for name, (default, help_) in lists.items():
        shown = f" (default: {default})" if default else ""
        bench.add_argument(f"--{name}", default=default, metavar="LIST", help=help_ + shown)
    bench.add_argument("--image", metavar="CxHxW", default="3x32x32", help="(default: 3x32x32)")
    bench.add_argument("--widths", metavar="LIST", help="of VGGSNN, as 64,128,P,256 (the paper's)")
    bench.add_argument("--device", metavar="NAME", help="cpu or cuda (cuda where torch finds one)")
    bench.add_argument("--threads", metavar="N", help="of each process (the cores at hand)")
    bench.add_argument("--repeats", metavar="N", default="5", help="turns of each (default: 5)")
    bench.add_argument(
        "--turn-seconds",
        metavar="S",
        default="0.5",
        help="a turn is a whole step, or as many as fill this (default: 0.5)",
    )
    bench.add_argument(
        "--data",
        metavar="NAME",
        help="the data set whose waiting time is measured (embedded; on a GPU fashion_mnist); "
        "or none",
    )
    bench.add_argument(
        "--peers",
        action="store_true",
        help="also SpikingJelly and snnTorch: uv pip install -r requirements-peers.lock",
    )
    bench.add_argument(
        "--pinned", action="store_true", help="also with the threads and instructions of `train`"
    )
    bench.add_argument(
        "--out",
        type=Path,
        default=Path("runs/bench"),
        metavar="DIR",
        help="for JSON, Markdown and SVG (default: runs/bench)",
    )
    bench.add_argument(
        "--readme",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="also put the tables between <!-- bench --> and <!-- /bench --> of this file",
    )
    other = bench.add_mutually_exclusive_group()
    other.add_argument(
        "--render", action="store_true", help="measure nothing; tables and figures of DIR's JSON"
    )
    other.add_argument(
        "--train",
        metavar="MINUTES",
        help="only train on all of Fashion-MNIST for so long and tell the accuracy",
    )


def options_of(given: argparse.Namespace, *, gpu: bool, cores: int) -> Options:
    """The options checked, with the defaults of the device.

    Args:
        given: what `add_options` declared.
        gpu: whether torch finds a GPU.
        cores: how many the process may use.

    Raises:
        UserError: names the option, what was given and what was expected.
    """
    device = given.device or ("cuda" if gpu else "cpu")
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device: expected cpu or cuda, got {device!r}")
    if device == "cuda" and not gpu:
        raise UserError("--device: torch finds no GPU here, expected cpu")
    on_gpu = device == "cuda"
    precisions = _names("precision", given.precision, PRECISIONS)
    if "tf32" in precisions and not on_gpu:
        raise UserError("--precision: tf32 needs --device cuda, expected float32 or bfloat16")
    steps = _positives("steps", given.steps)
    memory = given.memory_steps or ("2,8,30" if on_gpu else "2,8")
    data = given.data or ("fashion_mnist" if on_gpu else "embedded")
    return Options(
        models=_names("model", given.model, MODELS),
        image=_image(given.image),
        widths=None if given.widths is None else _widths(given.widths),
        steps=steps,
        chunks=_positives("chunk", given.chunk),
        batches=_positives("batch", given.batch or ("128" if on_gpu else "32")),
        precisions=precisions,
        norms=_names("norm", given.norm, NORMS),
        stabilize=tuple(name == "on" for name in _names("ots", given.ots, OTS)),
        memory_steps=() if memory == "none" else _positives("memory-steps", memory),
        device=device,
        threads=cores if given.threads is None else _positive("threads", given.threads),
        repeats=_positive("repeats", given.repeats),
        turn_seconds=seconds("turn-seconds", given.turn_seconds),
        peers=given.peers,
        pinned=given.pinned and not on_gpu,
        data=None if data == "none" else data,
        out=given.out,
        readme=tuple(given.readme),
    )


def seconds(option: str, text: str) -> float:
    """A positive number; UserError names the option."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UserError(f"--{option}: expected a number above 0, got {text!r}")
    return number


def _list(option: str, text: str, what: str, one: Callable[[str], T | None]) -> tuple[T, ...]:
    values: list[T] = []
    for part in text.split(","):
        value = one(part.strip())
        if value is None:
            raise UserError(f"--{option}: expected {what}, got {text!r}")
        if value not in values:
            values.append(value)
    return tuple(values)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,6}", text) else None


def _positives(option: str, text: str) -> tuple[int, ...]:
    return _list(option, text, "whole numbers from 1 on, as 1,2,4", _number)


def _positive(option: str, text: str) -> int:
    number = _number(text)
    if number is None:
        raise UserError(f"--{option}: expected a whole number from 1 on, got {text!r}")
    return number


def _names(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    what = f"some of {','.join(known)}"
    return _list(option, text, what, lambda part: part if part in known else None)


def _widths(text: str) -> tuple[int | str, ...]:
    parts = [part if part == "P" else _number(part) for part in text.split(",")]
    widths = tuple(part for part in parts if part is not None)
    if len(widths) < len(parts) or set(widths) == {"P"}:
        raise UserError(f"--widths: expected numbers and P, as 64,128,P,256, got {text!r}")
    return widths


def _image(text: str) -> tuple[int, int, int]:
    sizes = [_number(part) for part in text.split("x")]
    match sizes:
        case [int(channels), int(height), int(width)]:
            return channels, height, width
    raise UserError(f"--image: expected channels x height x width as 3x32x32, got {text!r}")
