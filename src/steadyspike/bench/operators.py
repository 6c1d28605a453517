"""The convolutions and matrix products of a training step, recorded and run again alone.

What a framework adds around them (norms, neurons, copies, the optimizer) is then the rest of its
step. The replay calls the very operators that the step called, forward and backward, in their
order, on tensors of the same shape, type and memory layout: the framework's, and our own fast
convolutions (`kernels.cpu.winograd`), whose operations count as those of the direct way.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from steadyspike.kernels.cpu import winograd

_ATEN = torch.ops.aten
_CONVOLUTIONS = {_ATEN.convolution.default, _ATEN.convolution_backward.default}
_PRODUCTS = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
}


_OWN = ("convolve", "grad_input", "grad_weight")


@dataclass(frozen=True)
class _Spec:
    """A tensor without its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "_Spec":
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def tensor(self) -> Tensor:
        # Of an expanded tensor the repeated elements exist once.
        sizes = [
            1 if stride == 0 else size for size, stride in zip(self.shape, self.stride, strict=True)
        ]
        base = torch.empty_strided(sizes, self.stride, dtype=self.dtype, device=self.device)
        noise = base.normal_() if self.dtype.is_floating_point else base.random_(0, 2)
        return noise.expand(self.shape)


class Recorder(TorchDispatchMode):
    """While entered, notes every convolution and matrix product, also those of backward passes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []
        self.operations = 0  # floating-point, a multiply-add being two

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS or func in _PRODUCTS:
            self.note(func, args, _operations(func, args, out))
        return out

    def note(self, func: Any, args: Sequence[Any], operations: int) -> None:
        """Add a call."""
        self.calls.append((func, tuple(_spec(argument) for argument in args)))
        self.operations += operations


def recorded(step: Callable[[], None]) -> Recorder:
    """What one step calls."""
    recorder = Recorder()
    with recorder, ExitStack() as stack:
        for module in (winograd.FLOAT32, winograd.BFLOAT16):
            for name in _OWN:
                stack.enter_context(_noted(recorder, module, name))
        step()
    return recorder


@contextmanager
def _noted(recorder: Recorder, module: Any, name: str) -> Iterator[None]:
    """Note the calls of one of our own functions, which torch does not see."""
    function = getattr(module, name)

    def noting(*args: Any) -> Any:
        out = function(*args)
        grad, weight = {
            "convolve": lambda: (out, args[1]),
            "grad_input": lambda: (args[0], args[1]),
            "grad_weight": lambda: (args[1], args[2]),
        }[name]()
        recorder.note(function, args, _of_convolution(grad.shape, weight.shape))
        return out

    setattr(module, name, noting)
    try:
        yield
    finally:
        setattr(module, name, function)


def replay(calls: Sequence[tuple[Any, tuple[Any, ...]]]) -> Callable[[], None]:
    """A function that runs the calls again, on noise made now; equal tensors are made once."""
    made: dict[_Spec, Tensor] = {}

    def value(argument: Any) -> Any:
        if isinstance(argument, _Spec):
            if argument not in made:
                made[argument] = argument.tensor()
            return made[argument]
        return argument

    prepared = [(func, [value(argument) for argument in arguments]) for func, arguments in calls]

    def run() -> None:
        with torch.no_grad():
            for func, arguments in prepared:
                func(*arguments)

    return run


def _spec(argument: Any) -> Any:
    return _Spec.of(argument) if isinstance(argument, Tensor) else argument


def _operations(func: Any, args: Sequence[Any], out: Any) -> int:
    if func is _ATEN.convolution.default:
        return _of_convolution(out.shape, args[1].shape)
    if func is _ATEN.convolution_backward.default:
        grad, _, weight = args[:3]
        sides = sum(args[10][:2])  # the gradients wanted, of input and of weight
        return int(sides) * _of_convolution(grad.shape, weight.shape)
    inner = int(args[-2].shape[-1])  # the left matrix's columns
    return 2 * inner * int(out.numel())


def _of_convolution(out: Sequence[int], weight: Sequence[int]) -> int:
    return 2 * math.prod(out) * math.prod(weight[1:])  # inputs of a group and the kernel's places
