"""What one training batch moves through memory and computes, counted without a device.

The training code runs on tensors that have shapes and no values. Every operation of torch counts
what it reads and what it writes, once; those that multiply by weights (convolutions, linear
layers) are kept apart, with their floating-point operations; the fused kernels count by
`kernels.traffic`. A GPU's bandwidth and throughput then predict the time, see :class:`Batch`.
Not counted: launches, of which CUDA graphs leave little, and caches, which make small layers
faster.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from steadyspike import kernels
from steadyspike.kernels import traffic
from steadyspike.kernels.traffic import Traffic
from steadyspike.models.blocks import StepDropout
from steadyspike.sequence import sequence
from steadyspike.train.loss import tet_loss


@dataclass
class Batch:
    """One training batch.

    Attributes:
        outside: of all that is not a synapse.
        kernels: of the fused kernels, a part of ``outside``, by their names.
        synapses: bytes and floating-point operations of each call of a convolution or linear
            layer, forward or backward; a multiply-accumulate is two.
    """

    outside: Traffic = field(default_factory=Traffic)
    kernels: dict[str, Traffic] = field(default_factory=dict)
    synapses: list[tuple[int, int]] = field(default_factory=list)

    @property
    def flops(self) -> int:
        """Of all synapses."""
        return sum(flops for _, flops in self.synapses)

    def outside_seconds(self, bandwidth: float) -> float:
        """At ``bandwidth`` bytes a second."""
        return self.outside.bytes / bandwidth

    def synapse_seconds(self, bandwidth: float, throughput: float) -> float:
        """Of each call the longer of moving and computing, ``throughput`` operations a second."""
        return sum(max(moved / bandwidth, flops / throughput) for moved, flops in self.synapses)

    def ratio(self, bandwidth: float, throughput: float) -> float:
        """Time outside the synapses over theirs."""
        return self.outside_seconds(bandwidth) / self.synapse_seconds(bandwidth, throughput)


def count_batch(
    model: nn.Module,
    frames: tuple[int, ...],
    *,
    steps: int,
    chunk: int,
    precision: str = "float32",
    fused: bool = True,
    still: bool = False,
) -> Batch:
    """Train one batch without values and count.

    Random dropout of the gesture head is left out.

    Args:
        model: a network of this package with real weights; it is copied.
        frames: (N, C, H, W).
        steps: T.
        chunk: K.
        precision: ``"float32"``, or ``"bfloat16"`` for autocast.
        fused: with the fused kernels and optimizer, as on a GPU; False is plain torch.
        still: whether the frames are the same at every step.
    """
    shapes = FakeTensorMode()
    model = deepcopy(model).train()._apply(shapes.from_tensor)
    for module in model.modules():
        if isinstance(module, StepDropout):
            module.eval()  # asks for a random number's value
    batch = Batch()
    backend = _CountingKernels(batch) if fused else None
    with (
        patch.object(kernels, "backend", lambda _: backend),
        shapes,
        sequence(model, steps, still=still),
    ):
        labels = torch.empty(frames[0], dtype=torch.int64)
        clip = torch.empty(frames).expand(steps, *frames) if still else torch.empty(steps, *frames)
        optimizer = torch.optim.SGD(
            model.parameters(), momentum=0.9, weight_decay=1e-4, foreach=not fused, fused=fused
        )
        for parameter in model.parameters():  # as after a first batch
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter)
        with _Counted(batch):
            for part in clip.split(chunk):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    logits = model(part)
                tet_loss(logits, labels, steps=steps, mse_weight=0.05).backward()
    with patch.object(kernels, "backend", lambda _: backend), shapes, _Counted(batch):
        optimizer.step()
    return batch


class _CountingKernels:
    """The functions of a backend, whose results have shapes and no values; counts what it moves."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def _count(self, name: str, moved: Traffic) -> None:
        self.batch.kernels[name] = self.batch.kernels.get(name, Traffic()) + moved
        self.batch.outside += moved

    def moments(self, x: Tensor) -> tuple[Tensor, ...]:
        self._count("moments", traffic.moments(x.shape, x.dtype))
        return x.new_empty((2, x.shape[0], x.shape[2]), dtype=torch.float32).unbind()

    def charge(
        self,
        x: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        before: Tensor | None,
        threshold: Tensor | None,
        *,
        leak: float,
        zero_reset: bool,
        out: Tensor,
        statistics: bool,
        spikes: Tensor | None = None,
        fire_at: float | None = None,
    ) -> Tensor | None:
        moved = traffic.charge(
            x.shape,
            x.dtype,
            norm=scale is not None,
            first=before is None,
            statistics=statistics,
            spikes=spikes is not None,
        )
        self._count("charge", moved)
        return out.new_empty(2) if statistics else None

    def fire(self, u: Tensor, threshold: Tensor, out: Tensor) -> None:
        self._count("fire", traffic.fire(u.shape, out.dtype))

    def grad_sums(
        self, grad: Tensor, u: Tensor | None, thresholds: Tensor | None, slope: float, x: Tensor,
        mean: Tensor, std: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        self._count("grad_sums", traffic.grad_sums(x.shape, x.dtype, neuron=u is not None))
        return x.new_empty((2, x.shape[0], x.shape[2]), dtype=torch.float32).unbind()

    def grad_input(
        self, grad: Tensor, u: Tensor | None, thresholds: Tensor | None, slope: float,
        x: Tensor | None, *norm: Tensor | None,
    ) -> Tensor:  # fmt: skip
        like = grad if x is None else x
        moved = traffic.grad_input(like.shape, like.dtype, neuron=u is not None, norm=x is not None)
        self._count("grad_input", moved)
        return torch.empty_like(like)

    def pack(self, x: Tensor, levels: float) -> Tensor:
        self._count("pack", traffic.pack(x.shape, x.dtype))
        return torch.empty_like(x, dtype=torch.uint8)

    def unpack(self, packed: Tensor, levels: float, dtype: torch.dtype) -> Tensor:
        self._count("unpack", traffic.unpack(packed.shape, dtype))
        return torch.empty_like(packed, dtype=dtype)


class _Counted(TorchDispatchMode):
    """Counts what every operation of the body, forward and backward, reads and writes."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch = batch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        moved = _moved(func, args, kwargs, result)
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)
            self.batch.synapses.append((moved.bytes, flops))
        else:
            self.batch.outside += moved
        return result


_WRITES_ONLY = {"copy_", "fill_", "zero_", "bernoulli_"}  # what they change, they do not read
_SHAPE_ONLY = {("avg_pool2d_backward", "self")}  # an argument whose values nobody looks at
_MOVES_NOTHING = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    "_unsafe_view",
}


def _moved(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Traffic:
    """What one operation reads and writes by its schema; a value written is one operation."""
    name, schema = func.overloadpacket.__name__, func._schema
    changed = [argument for argument in schema.arguments if argument.alias_info is not None]
    if (
        func.namespace != "aten"
        or name in _MOVES_NOTHING
        or any(not argument.alias_info.is_write for argument in changed)  # a view
    ):
        return Traffic()
    given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)}
    given |= kwargs
    like = name.startswith("new_") or name.endswith("_like")  # values of their own
    read = [
        given.get(argument.name)
        for argument in schema.arguments
        if not (like or argument.is_out or (name, argument.name) in _SHAPE_ONLY)
        and not (argument in changed and name in _WRITES_ONLY)
    ]
    written = [given.get(argument.name) for argument in changed] or result
    values = sum(tensor.numel() for tensor in _tensors(written))
    return Traffic(_bytes(read), _bytes(written), values)


def _tensors(values: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _bytes(values: Any) -> int:
    """In memory: what is expanded over a dimension is there once."""
    return sum(
        tensor.element_size()
        * prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
        for tensor in _tensors(values)
    )
