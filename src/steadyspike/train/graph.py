"""A batch's presentation recorded once as a CUDA graph, then replayed by a single launch.

At small batches a GPU finishes a kernel sooner than the processor can launch the next. A graph
launches all of a presentation's at once: the same kernels in the same order, so the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

#: A presentation of a clip (T, N, C, H, W) with labels (N,): leaves gradients, gives scores.
Present = Callable[[Tensor, Tensor], Tensor]
#: Presentations before the recording: they compile kernels and make what lasts from batch to batch.
WARM_UP = 3


class Recorder(Protocol):
    """What records the work of a device."""

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        """Do ``work`` as it will be recorded, without recording it."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Records ``work`` without doing it: what does it, and where its result then lies."""


class CudaRecorder:
    """Records on a CUDA device."""

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        aside = torch.cuda.Stream()  # a recording is made on such a stream too
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            result = work()
        torch.cuda.current_stream().wait_stream(aside)
        return result

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()
        return graph.replay, result


class Replayed:
    """``present``, replayed for clips like the first one; others it does itself.

    Whatever depends on the processor at each presentation would be frozen by the recording:
    ``present`` must not draw seeds there, nor exchange anything with other processes.

    Args:
        present: must begin with gradients of None, and end with one for each of ``parameters``.
        parameters: whose gradients are to be found after a call.
        recorder: of the device on which all of this happens.
    """

    def __init__(
        self, present: Present, parameters: Sequence[nn.Parameter], recorder: Recorder
    ) -> None:
        self.present, self.parameters, self.recorder = present, list(parameters), recorder
        self.warm = 0
        self.like: tuple[object, ...] | None = (
            None  # what the clips of the recording have in common
        )
        self.replay: Callable[[], None] | None = None

    def __call__(self, clip: Tensor, labels: Tensor) -> Tensor:
        """As ``present``; the scores are overwritten by the next call."""
        like = (clip.shape, clip.stride(), clip.dtype, labels.shape)
        if self.like is None:
            self.like = like
        if like != self.like:  # an epoch's last batch
            return self.present(clip, labels)
        if self.warm < WARM_UP:
            self.warm += 1
            return self.recorder.warm_up(lambda: self.present(clip, labels))
        if self.replay is None:
            self._record(clip, labels)
        assert self.replay is not None
        self.frames.copy_(_frames(clip))
        self.labels.copy_(labels)
        self.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.scores

    def _record(self, clip: Tensor, labels: Tensor) -> None:
        # Its own memory, from which every replay reads.
        self.frames, self.labels = _frames(clip).clone(), labels.clone()
        own = self.frames.expand(clip.shape)
        self.replay, self.scores = self.recorder.record(lambda: self.present(own, self.labels))
        self.gradients = [parameter.grad for parameter in self.parameters]


def _frames(clip: Tensor) -> Tensor:
    """What of a clip is in memory: one step where all show the same."""
    return clip[:1] if clip.stride(0) == 0 else clip
