"""Work of a GPU as a CUDA graph, recorded once and replayed.

For small batches a GPU finishes a kernel sooner than the processor can launch the next one. A
graph launches all of them at once: the same kernels in the same order, so the same bits.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

#: Eager runs before the recording: they compile kernels and allocate what lasts between batches.
WARM_UP = 3


class Recorder(Protocol):
    """Records the work of a device."""

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        """Run ``work`` in the way it will be recorded."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Record ``work``; returns a function that replays it, and its result tensor."""


class CudaRecorder:
    """Records on a CUDA device."""

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        side = torch.cuda.Stream()  # a recording is made on a side stream too
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            result = work()
        torch.cuda.current_stream().wait_stream(side)
        return result

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # The default mode, "global", fails if another thread calls CUDA during the recording, as
        # the one that pins the next batch's memory does.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = work()
        return graph.replay, result


class Replayed:
    """Replays recorded work for a whole batch; runs a smaller one, an epoch's last, eagerly.

    A recording freezes whatever the processor decides: ``work`` must depend on nothing but its
    inputs and tensors that are changed in place, and not communicate with other processes. Random
    numbers of torch's default generator are drawn anew in every replay.

    Args:
        work: from tensors, the first one with N rows, to a tensor on ``device``. It moves its
            inputs there if they are elsewhere.
        recorder: for ``device``.
        batch: N of a whole batch.
        device: where the recording reads its inputs.
        parameters: which have gradients after a call; ``work`` must start from gradients of None.
    """

    def __init__(
        self,
        work: Callable[..., Tensor],
        recorder: Recorder,
        batch: int,
        device: torch.device,
        parameters: Iterable[nn.Parameter] = (),
    ) -> None:
        self.work, self.recorder = work, recorder
        self.batch, self.device = batch, device
        self.parameters = list(parameters)
        self.warm = 0
        self.replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result of ``work``; the next call may overwrite it."""
        if len(inputs[0]) != self.batch:
            return self.work(*inputs)
        if self.warm < WARM_UP:
            self.warm += 1
            return self.recorder.warm_up(lambda: self.work(*inputs))
        if self.replay is None:
            # Every replay reads its inputs from this memory.
            self.inputs = [torch.empty_like(each, device=self.device) for each in inputs]
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        if self.replay is None:
            self.replay, self.result = self.recorder.record(lambda: self.work(*self.inputs))
            self.gradients = [parameter.grad for parameter in self.parameters]
        self.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.result
