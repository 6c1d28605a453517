"""The arguments of `steadyspike bench`; imports nothing heavy, as every command loads this."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PRECISIONS = ("float32", "tf32", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; argparse checks each value, and `run` what depends on the device."""
    add = parser.add_argument
    add(
        "--peers",
        action="store_true",
        help="also SpikingJelly and snnTorch: uv pip install -r requirements-peers.lock",
    )
    add(
        "--precision",
        type=_list(_precision),
        default=("float32", "bfloat16"),
        metavar="LIST",
        help="of float32, tf32 (on a GPU), bfloat16 (default: float32,bfloat16)",
    )
    add(
        "--batch",
        type=_positive,
        metavar="N",
        help="images in a batch (default: 32; on a GPU 128)",
    )
    add(
        "--steps",
        type=_positive,
        default=4,
        metavar="T",
        help="time steps of an image (default: 4)",
    )
    add(
        "--chunk",
        type=_list(_positive),
        default=(1, 2, 4),
        metavar="LIST",
        help="K, the steps in one forward and backward pass, at most T (default: 1,2,4)",
    )
    add("--device", choices=("cpu", "cuda"), help="default: cuda if torch finds a GPU, else cpu")
    add(
        "--data",
        default="embedded",
        metavar="NAME",
        help="data set for the share of training time spent waiting for data, or none "
        "(default: embedded)",
    )
    add("--quick", action="store_true", help="a tiny network and short turns, to try the command")
    add(
        "--out",
        type=Path,
        default=Path("runs/bench"),
        metavar="DIR",
        help="folder for JSON, Markdown and figures (default: runs/bench)",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--render",
        action="store_true",
        help="measure nothing, write tables and figures from the JSON files in DIR",
    )
    mode.add_argument(
        "--experiments",
        type=Path,
        metavar="FILE",
        help="only training batches of each experiment of a params.yaml, in turns; writes "
        "bench.json beside it, for its report",
    )
    mode.add_argument(
        "--train",
        type=_minutes,
        metavar="MINUTES",
        help="only train on Fashion-MNIST for about so long and report the test accuracy",
    )


def _list(convert: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A parser of values separated by commas; a value given twice counts once."""
    return lambda text: tuple(dict.fromkeys(convert(part.strip()) for part in text.split(",")))


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**7:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _precision(text: str) -> str:
    if text not in PRECISIONS:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(PRECISIONS)}, got {text!r}")
    return text


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of minutes above 0, got {text!r}")
    return minutes
