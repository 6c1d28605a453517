"""Work of a GPU as a CUDA graph, recorded once and replayed.

For small batches a GPU finishes a kernel sooner than the processor can launch the next one. A
graph launches all of them at once: the same kernels in the same order, so the same bits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
    """Records on a CUDA device.

    All its recordings share one pool of memory: a result is overwritten by the next replay of any.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.side = torch.cuda.Stream()  # a recording is made on a side stream too

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            result = work()
        torch.cuda.current_stream().wait_stream(self.side)
        return result

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # The default mode, "global", fails if another thread calls CUDA during the recording, as
        # the one that pins the next batch's memory does.
        with torch.cuda.graph(graph, self.pool, capture_error_mode="thread_local"):
            result = work()
        return graph.replay, result


@dataclass
class _Recording:
    """The recording for inputs of one shape, and the warm-up runs before it."""

    warmed: int = 0
    inputs: list[Tensor] = field(default_factory=list)  # every replay reads them from here
    gradients: list[Tensor | None] = field(default_factory=list)
    replay: Callable[[], None] | None = None
    result: Tensor | None = None


class Replayed:
    """Runs ``work`` eagerly `WARM_UP` times, then records it, and replays it from then on.

    Each shape of the inputs has a recording of its own: there are whole batches, and an epoch's
    last. A recording freezes whatever the processor decides: ``work`` must depend on nothing but
    its inputs and tensors that are changed in place, and not communicate with other processes.
    Random numbers of torch's default generator are drawn anew in every replay.

    Args:
        work: from tensors to a tensor on ``device``; it moves its inputs there if they are
            elsewhere.
        recorder: for ``device``.
        device: where a recording reads its inputs.
        parameters: which have gradients after a call; ``work`` must start from gradients of None.
    """

    def __init__(
        self,
        work: Callable[..., Tensor],
        recorder: Recorder,
        device: torch.device,
        parameters: Iterable[nn.Parameter] = (),
    ) -> None:
        self.work, self.recorder, self.device = work, recorder, device
        self.parameters = list(parameters)
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    @property
    def recorded(self) -> list[list[Tensor]]:
        """The inputs in the memory of each recording."""
        return [each.inputs for each in self._recordings.values() if each.replay is not None]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result of ``work``; the next call, of another one's too, may overwrite it."""
        shape = tuple(each.shape for each in inputs)
        recording = self._recordings.setdefault(shape, _Recording())
        if recording.warmed < WARM_UP:
            recording.warmed += 1
            return self.recorder.warm_up(lambda: self.work(*inputs))
        if recording.replay is None:
            recording.inputs = [torch.empty_like(each, device=self.device) for each in inputs]
        for own, given in zip(recording.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        if recording.replay is None:
            recording.replay, recording.result = self.recorder.record(
                lambda: self.work(*recording.inputs)
            )
            recording.gradients = [parameter.grad for parameter in self.parameters]
        recording.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        assert recording.result is not None
        return recording.result
