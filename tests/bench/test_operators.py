import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadyspike import kernels
from steadyspike.bench import ours
from steadyspike.bench.operators import Recorder, recorded, replay
from steadyspike.bench.setting import Setting
from steadyspike.bench.work import train_step
from steadyspike.kernels.cpu import winograd

N, C, OUT, SIDE, KERNEL, CLASSES = 2, 3, 5, 7, 3, 4
CONVOLUTION = 2 * N * OUT * SIDE**2 * C * KERNEL**2  # a multiply-add is two operations
PRODUCT = 2 * N * CLASSES * OUT * SIDE**2


def step(of_input: bool, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Recorder]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(C, OUT, KERNEL, padding=1), nn.Flatten(), nn.Linear(OUT * SIDE**2, CLASSES)
    ).to(dtype)
    frames = torch.randn(N, C, SIDE, SIDE, dtype=dtype, requires_grad=of_input)
    labels = torch.zeros(N, dtype=torch.int64)
    record = recorded(lambda: F.cross_entropy(model(frames), labels).backward())
    return model, record


@pytest.mark.parametrize("of_input", [False, True])
def test_operations_of_a_step_by_hand(of_input: bool) -> None:
    _, record = step(of_input)
    # Forward, the gradient of the weight, and for all but the first layer that of the input.
    assert record.operations == (2 + of_input) * CONVOLUTION + 3 * PRODUCT
    assert len(record.calls) == 2 + 3


def test_the_replay_calls_the_same_operators_on_the_same_shapes() -> None:
    _, record = step(True, torch.bfloat16)
    run = replay(record.calls)
    again = recorded(run)
    assert again.calls == record.calls
    assert again.operations == record.operations
    assert not any(
        isinstance(argument, torch.Tensor) for _, call in record.calls for argument in call
    )


def test_the_replay_keeps_memory_layouts() -> None:
    conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    frames = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    record = recorded(lambda: conv(frames).sum().backward())  # whose gradient is expanded
    assert recorded(replay(record.calls)).calls == record.calls


def test_a_replay_changes_no_gradient() -> None:
    model, record = step(False)
    before = [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]
    replay(record.calls)()
    after = [parameter.grad for parameter in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True) if b is not None)


def test_what_is_no_product_is_not_recorded() -> None:
    record = recorded(lambda: torch.randn(3, 3).mul(2).relu().sum())
    assert record.calls == []
    assert record.operations == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_our_own_convolutions_count_as_the_frameworks_do(chunk: int, precision: str) -> None:
    """What a step computes does not depend on whose convolutions do it."""
    setting = Setting(
        image=(3, 16, 16), widths=(32, 64, 64), steps=2, chunk=chunk, batch=3, precision=precision
    )
    (make,) = ours.online(setting).values()
    own = recorded(partial(train_step, make()))
    with kernels.disabled():
        (make,) = ours.online(setting).values()
        plain = recorded(partial(train_step, make()))
    assert own.operations == plain.operations
    modules = {getattr(func, "__module__", "") for func, _ in own.calls}
    x = torch.empty(3 * chunk, 32, 16, 16, dtype=getattr(torch, precision))
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.empty(64, 32, 3, 3, dtype=x.dtype)
    for way in (winograd.FLOAT32, winograd.BFLOAT16):
        assert (way.__name__ in modules) == way.serves(x, weight, (1, 1), (1, 1))
    replay(own.calls)()


def test_batched_products_count_too() -> None:
    record = recorded(lambda: torch.bmm(torch.randn(3, 2, 5), torch.randn(3, 5, 4)))
    assert record.operations == 2 * math.prod((3, 2, 5, 4))
