"""A batch's forward and backward passes as a CUDA graph, recorded once and replayed.

For small batches a GPU finishes a kernel sooner than the processor can launch the next one. A
graph launches all of them at once: the same kernels in the same order, so the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from steadyspike.errors import UserError
from steadyspike.models.blocks import StepDropout
from steadyspike.train.distributed import Ranks

#: A clip (T, N, C, H, W) and labels (N,) to scores; leaves gradients in the parameters.
ForwardBackward = Callable[[Tensor, Tensor], Tensor]
#: Eager runs before the recording: they compile kernels and allocate what lasts between batches.
WARM_UP = 3


def check_recordable(name: str, model: nn.Module, ranks: Ranks) -> None:
    """UserError if a batch of experiment ``name`` cannot be recorded as a CUDA graph."""
    key = f"{name}: training.cuda_graph"
    if not ranks.alone:
        raise UserError(f"{key}: expected false with several processes, which exchange sums")
    if any(isinstance(m, StepDropout) and m.probability > 0 for m in model.modules()):
        raise UserError(
            f"{key}: expected false for a network whose head draws a seed for each batch"
        )


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
    """Replays the recorded graph for a whole batch; runs a smaller one, an epoch's last, eagerly.

    A recording freezes whatever the processor decides: ``forward_backward`` must not draw seeds
    or communicate with other processes.

    Args:
        forward_backward: must start from gradients of None and leave one for each parameter.
        parameters: whose gradients are to be found after a call.
        recorder: for the device of the tensors.
        batch: N of a whole batch.
    """

    def __init__(
        self,
        forward_backward: ForwardBackward,
        parameters: Sequence[nn.Parameter],
        recorder: Recorder,
        batch: int,
    ) -> None:
        self.forward_backward = forward_backward
        self.parameters, self.recorder = list(parameters), recorder
        self.batch = batch
        self.warm = 0
        self.replay: Callable[[], None] | None = None

    def __call__(self, clip: Tensor, labels: Tensor) -> Tensor:
        """The scores of ``forward_backward``; the next call overwrites them."""
        if len(labels) != self.batch:
            return self.forward_backward(clip, labels)
        if self.warm < WARM_UP:
            self.warm += 1
            return self.recorder.warm_up(lambda: self.forward_backward(clip, labels))
        if self.replay is None:
            self._record(clip, labels)
        assert self.replay is not None
        self.frames.copy_(_stored_frames(clip))
        self.labels.copy_(labels)
        self.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.scores

    def _record(self, clip: Tensor, labels: Tensor) -> None:
        # Every replay reads its inputs from this memory.
        self.frames, self.labels = _stored_frames(clip).clone(), labels.clone()
        inputs = self.frames.expand(clip.shape)
        self.replay, self.scores = self.recorder.record(
            lambda: self.forward_backward(inputs, self.labels)
        )
        self.gradients = [parameter.grad for parameter in self.parameters]


def _stored_frames(clip: Tensor) -> Tensor:
    """The part of a clip that is in memory: one step where all steps are the same frames."""
    return clip[:1] if clip.stride(0) == 0 else clip
