import argparse
from pathlib import Path

import pytest

from steadyspike.bench.options import Options, add_options, options_of
from steadyspike.errors import UserError


def options(*arguments: str, gpu: bool = False) -> Options:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return options_of(parser.parse_args(arguments), gpu=gpu, cores=3)


def test_what_a_run_without_options_measures() -> None:
    chosen = options()
    assert chosen.models == ("vggsnn",)
    assert (chosen.steps, chosen.chunks, chosen.batches) == ((4,), (1, 2, 4), (32,))
    assert chosen.precisions == ("float32", "bfloat16")
    assert (chosen.norms, chosen.stabilize) == (("osr",), (True,))
    assert (chosen.device, chosen.threads) == ("cpu", 3)
    assert chosen.data == "embedded"
    assert not chosen.peers
    assert not chosen.pinned
    assert chosen.out == Path("runs/bench")


def test_what_it_measures_on_a_gpu() -> None:
    chosen = options(gpu=True)
    assert chosen.device == "cuda"
    assert chosen.batches == (128,)
    assert chosen.precisions == ("float32", "bfloat16")
    assert 2 in chosen.memory_steps
    assert 30 in chosen.memory_steps
    assert chosen.data == "fashion_mnist"
    assert options("--device", "cpu", gpu=True).batches == (32,)


def test_lists_keep_their_order_and_each_value_once() -> None:
    chosen = options(
        *("--steps", "8, 2,8", "--ots", "off,on", "--norm", "per_step,osr", "--widths", "4,P,8"),
        *("--memory-steps", "none", "--data", "none", "--image", "1x28x30", "--peers", "--pinned"),
    )
    assert chosen.steps == (8, 2)
    assert chosen.stabilize == (False, True)
    assert chosen.norms == ("per_step", "osr")
    assert chosen.widths == (4, "P", 8)
    assert chosen.memory_steps == ()
    assert chosen.data is None
    assert chosen.image == (1, 28, 30)
    assert chosen.peers
    assert chosen.pinned


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--steps", "0", "whole numbers from 1 on"),
        ("--steps", "1,,2", "whole numbers from 1 on"),
        ("--chunk", "two", "whole numbers from 1 on"),
        ("--batch", "1.5", "whole numbers from 1 on"),
        ("--memory-steps", "-1", "whole numbers from 1 on"),
        ("--repeats", "0", "a whole number from 1 on"),
        ("--threads", "many", "a whole number from 1 on"),
        ("--turn-seconds", "nan", "a number above 0"),
        ("--turn-seconds", "-1", "a number above 0"),
        ("--model", "vgg", "some of vggsnn,resnet19"),
        ("--precision", "float16", "some of float32,tf32,bfloat16"),
        ("--precision", "tf32", "needs --device cuda"),
        ("--norm", "batch", "some of osr,per_step"),
        ("--ots", "yes", "some of on,off"),
        ("--image", "32x32", "3x32x32"),
        ("--image", "3x0x32", "3x32x32"),
        ("--widths", "P", "numbers and P"),
        ("--widths", "64,p", "numbers and P"),
        ("--device", "tpu", "expected cpu or cuda"),
        ("--device", "cuda", "no GPU here"),
    ],
)
def test_a_mistake_names_its_option_what_was_given_and_what_was_expected(
    option: str, value: str, expected: str
) -> None:
    with pytest.raises(UserError) as error:
        options(f"{option}={value}")
    message = str(error.value)
    assert message.startswith(f"{option}: ")
    assert expected in message
    assert repr(value) in message or value in ("tf32", "cuda")
