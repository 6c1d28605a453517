import argparse
from dataclasses import replace
from pathlib import Path

from steadyspike.bench.options import Options, add_options, options_of
from steadyspike.bench.predict import FILE, GPUS, counted, predict, text
from tiny import REPOSITORY


def options(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return options_of(parser.parse_args([*arguments, "--batch", "128"]), gpu=False, cores=2)


def test_the_repositorys_page_is_what_is_counted_now() -> None:
    """Its first row, and the words around the tables."""
    page = (REPOSITORY / "docs" / FILE).read_text().splitlines()
    chosen = options("--precision", "float32", "--chunk", "1")
    rows = [next(iter(counted(chosen)))]
    for line in text(rows, chosen).splitlines():
        assert line in page


def test_a_page_for_a_small_network(tmp_path: Path) -> None:
    chosen = options("--widths", "4,P,8", "--image", "1x8x8", "--chunk", "1,4", "--model", "vggsnn")
    path = predict(replace(chosen, out=tmp_path))
    rows = [line for line in path.read_text().splitlines() if line.startswith("| vggsnn |")]
    assert len(rows) == 2 * 2 * 2 * (1 + len(GPUS))  # precision, path, K; counts and each GPU
    fused, plain = (float(row.split("|")[4]) for row in rows[-2:])
    assert fused < plain
