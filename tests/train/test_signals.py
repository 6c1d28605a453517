import signal

import pytest

from steadyspike.train.signals import stop_request


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ([], None),
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGINT, signal.SIGTERM], 143),
    ],
)
def test_a_signal_is_recorded_and_the_body_continues(
    numbers: list[int], status: int | None
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_request() as request:
        for number in numbers:
            signal.raise_signal(number)
        assert request.exit_status == status
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_another_signal_interrupts_at_once(first: int) -> None:
    with stop_request():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_error_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LookupError), stop_request():
        raise LookupError
    assert signal.getsignal(signal.SIGTERM) == before
