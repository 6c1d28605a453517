"""Nothing in VGGSNN waits for the device, in training or at inference."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.vggsnns import TINY, small_batch
from no_waiting import NoReading, no_waiting
from steadyspike import sequence
from steadyspike.models import VGGSNN
from steadyspike.train import tet_loss


class _ReadsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2 if (grads[0] > 0).any() else grads[0]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: torch.where(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: _ReadsInBackward.apply(x).sum().backward(),
    ],
    ids=["item", "if", "mask", "where", "equal", "backward"],
)
def test_the_watch_sees_what_it_should(read: Any) -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(AssertionError, match="reads a tensor"), NoReading():
        read(x)


def without_reading_options() -> Iterator[Any]:
    for norm in ("osr", "per_step", "linear", "batch"):
        for ots in (False, True):
            yield pytest.param({"norm": norm, "stabilize_threshold": ots}, id=f"{norm}-ots={ots}")
    bptt = {"norm": "batch", "stabilize_threshold": True, "online": False}
    yield pytest.param(bptt, id="bptt-ots=True")
    yield pytest.param({"reset": "zero", "dropout": 0.2}, id="zero-dropout")
    yield pytest.param({"inference_threshold": "fixed"}, id="fixed")
    yield pytest.param({"warm_up_statistics": True}, id="warmed-up")
    for rule in ("ottt", "ndot"):
        yield pytest.param({"rule": rule}, id=rule)
    for norm in ("ws", "bntt", "tab"):
        yield pytest.param({"norm": norm, "steps": 3, "rule": "ottt"}, id=norm)
    for norm in ("tdbn", "tebn"):
        options = {"norm": norm, "steps": 3, "online": False, "stabilize_threshold": False}
        yield pytest.param(options, id=norm)


def presentations(model: nn.Module, clip: Tensor, chunks: Sequence[int]) -> None:
    """Training and inference, two batches; no loss with labels, whose checks read them on a CPU."""
    for _ in range(2):
        with sequence(model.train(), steps=len(clip)):
            for frames in clip.split(chunks):
                model(frames).square().sum().backward()
        with torch.no_grad(), sequence(model.eval(), steps=len(clip)):
            for frames in clip.split(chunks):
                model(frames)
        with torch.no_grad():
            model(clip)


@pytest.mark.parametrize("options", list(without_reading_options()))
def test_nothing_is_read_on_the_host(options: dict[str, Any]) -> None:
    clip, _ = small_batch(torch.float32)
    model = VGGSNN(2, 3, widths=TINY, **options)
    with NoReading():
        presentations(model, clip, [4] if not options.get("online", True) else [1, 3])


@pytest.mark.gpu
@pytest.mark.parametrize("options", list(without_reading_options()))
def test_nothing_waits_for_the_gpu(options: dict[str, Any]) -> None:
    clip, labels = (tensor.cuda() for tensor in small_batch(torch.float32))
    model = VGGSNN(2, 3, widths=TINY, **options).cuda()
    chunks = [4] if not options.get("online", True) else [1, 3]

    def everything() -> None:
        presentations(model, clip, chunks)
        with sequence(model.train(), steps=len(clip)):
            for frames in clip.split(chunks):
                tet_loss(model(frames), labels, steps=len(clip), mse_weight=0.05).backward()

    everything()  # libraries load on first use, and wait
    with no_waiting():
        everything()
