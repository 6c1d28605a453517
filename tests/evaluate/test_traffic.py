"""Counts of a whole batch against those of a real one, and of single operations by hand."""

from collections import Counter
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from steadyspike import kernels
from steadyspike.evaluate.traffic import Batch, _Counted, count_batch
from steadyspike.kernels import reference
from steadyspike.kernels.traffic import Traffic
from steadyspike.models import build
from steadyspike.sequence import sequence
from steadyspike.train.loss import tet_loss

FRAMES = (2, 3, 8, 8)
STEPS = 3


def small(**options: Any) -> nn.Module:
    model = build("vggsnn", in_channels=3, num_classes=4, widths=(5, "P", 6), **options)
    return model.to(memory_format=torch.channels_last)


def present(model: nn.Module, chunk: int, still: bool) -> None:
    clip = torch.randn(FRAMES).expand(STEPS, *FRAMES)
    with sequence(model, STEPS, still=still):
        for part in clip.split(chunk):
            labels = torch.zeros(len(clip[0]), dtype=torch.int64)
            tet_loss(model(part), labels, steps=STEPS, mse_weight=0.05).backward()


def counting(seen: Counter[str]) -> SimpleNamespace:
    """The reference backend, which adds the bytes of all tensors it takes and gives."""

    def wrapped(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = getattr(reference, name)(*args, **kwargs)
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            seen[name] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            return result

        return call

    names = ("moments", "charge", "fire", "grad_sums", "grad_input", "pack", "unpack")
    return SimpleNamespace(**{name: wrapped(name) for name in names})


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("stabilize_threshold", [True, False])
@pytest.mark.parametrize("still", [True, False])
def test_kernels_move_what_a_real_batch_moves(
    chunk: int, stabilize_threshold: bool, still: bool
) -> None:
    model = small(stabilize_threshold=stabilize_threshold)
    batch = count_batch(model, FRAMES, steps=STEPS, chunk=chunk, still=still)
    seen: Counter[str] = Counter()
    backend = counting(seen)
    with patch.object(kernels, "backend", lambda _: backend):
        present(model, chunk, still)
    counted = {name: moved.bytes for name, moved in batch.kernels.items()}
    assert seen == counted
    assert batch.outside.bytes > sum(counted.values())


@pytest.mark.parametrize("fused", [True, False])
def test_operations_of_synapses_are_a_real_batchs(fused: bool) -> None:
    model = small()
    batch = count_batch(model, FRAMES, steps=STEPS, chunk=2, fused=fused)
    with FlopCounterMode(display=False) as counter:
        present(model, chunk=2, still=False)
    assert batch.flops == counter.get_total_flops()


def test_the_model_is_left_alone() -> None:
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_batch(model, FRAMES, steps=STEPS, chunk=1)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fused_moves_less_and_low_precision_less_still() -> None:
    model = build("vggsnn", in_channels=3, num_classes=4, widths=(16, 16, "P", 16))
    frames = (8, 3, 16, 16)
    plain, fused, low = (
        count_batch(model, frames, steps=4, chunk=1, fused=fused, precision=precision)
        for fused, precision in ((False, "float32"), (True, "float32"), (True, "bfloat16"))
    )
    assert 2 * fused.outside.bytes < plain.outside.bytes
    assert low.outside.bytes < fused.outside.bytes
    assert plain.flops == fused.flops == low.flops
    moved = [sum(each for each, _ in batch.synapses) for batch in (plain, fused, low)]
    assert moved[0] == moved[1] == 2 * moved[2]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet19", {"widths": (4, 6), "blocks": (1, 1), "image_size": 8}),
        ("sew_resnet34", {"widths": (4, 6), "blocks": (1, 1)}),
        ("nf_resnet34", {"widths": (4, 6), "blocks": (1, 1), "norm": "per_step"}),
        ("vggsnn", {"widths": (4,), "head": "gesture", "head_widths": (6, 6), "dropout": 0.1}),
        ("vggsnn", {"widths": (4,), "norm": "batch", "online": False}),
    ],
)
def test_every_network_is_counted(name: str, options: dict[str, Any]) -> None:
    model = build(name, in_channels=3, num_classes=4, **options)
    batch = count_batch(model, FRAMES, steps=2, chunk=2)
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    activations = FRAMES[0] * 4 * 8 * 8 * 4
    assert batch.outside.bytes > 5 * weights + 4 * activations  # the optimizer's, a layer's
    assert len(batch.synapses) >= 2 * len([m for m in model.modules() if isinstance(m, nn.Conv2d)])


def test_a_ratio_by_hand() -> None:
    batch = Batch(outside=Traffic(60, 40), synapses=[(100, 10), (10, 4000)])
    # 100 bytes at 10 a second; the first synapse moves for 10 s, the second computes for 40 s.
    assert batch.outside_seconds(bandwidth=10) == 10
    assert batch.synapse_seconds(bandwidth=10, throughput=100) == 50
    assert batch.ratio(bandwidth=10, throughput=100) == 0.2
    assert batch.flops == 4010


def counted(function: Any) -> tuple[int, int]:
    batch = Batch()
    with _Counted(batch):
        function()
    return batch.outside.read, batch.outside.written


def test_single_operations_by_hand() -> None:
    x, y = torch.ones(6, 4), torch.ones(6, 4)  # 96 bytes each
    assert counted(lambda: x + y) == (192, 96)
    assert counted(lambda: x.add_(y)) == (192, 96)
    assert counted(lambda: torch.sub(x, y, out=torch.empty(6, 4))) == (192, 96)
    assert counted(lambda: x.copy_(y)) == (96, 96)
    assert counted(lambda: x.zero_()) == (0, 96)
    assert counted(lambda: torch.zeros_like(x)) == (0, 96)
    assert counted(lambda: torch.empty_like(x)) == (0, 0)
    assert counted(lambda: x.view(4, 6).t()[1:].unsqueeze(0)) == (0, 0)
    assert counted(lambda: x + torch.ones(1, 4).expand(6, 4)) == (112, 96 + 16)
    assert counted(lambda: x.sum(0)) == (96, 16)
    assert counted(lambda: x.bfloat16()) == (96, 48)
    assert counted(lambda: torch.stack([x, y])) == (192, 192)
    assert counted(lambda: x >= y) == (192, 24)
