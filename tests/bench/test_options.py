import argparse

import pytest

from steadyspike.bench.options import add_arguments


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_lists_keep_their_order_and_each_value_once() -> None:
    args = parsed("--chunk", "8, 2,8", "--precision=bfloat16")
    assert args.chunk == (8, 2)
    assert args.precision == ("bfloat16",)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--steps", "1,2", "expected a whole number above 0"),
        ("--chunk", "1,0", "expected a whole number above 0"),
        ("--chunk", "two", "expected a whole number above 0"),
        ("--batch", "1.5", "expected a whole number above 0"),
        ("--batch", "-1", "expected a whole number above 0"),
        ("--precision", "float16", "expected some of float32,tf32,bfloat16"),
        ("--train", "nan", "expected a number of minutes above 0"),
        ("--train", "long", "expected a number of minutes above 0"),
        ("--device", "tpu", "invalid choice"),
    ],
)
def test_a_mistake_names_option_value_and_expectation(
    option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        parsed(f"{option}={value}")
    assert error.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: {expected}" in message
    assert value.split(",")[-1] in message
