"""The logic around a CUDA graph, with a recorder that runs the work again on the processor."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from steadyspike.errors import UserError
from steadyspike.train.digest import state_digest
from steadyspike.train.distributed import Ranks
from steadyspike.train.graph import WARM_UP, Replayed, check_recordable
from steadyspike.train.trainer import Trainer
from tiny import finish, tiny_dataset, tiny_experiment


class Again:
    """Reads what lies in the recording's inputs, writes where its results lay, as a graph does."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.warmed = self.recorded = self.replayed = 0

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        self.warmed += 1
        return work()

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        assert not self.trainer.silence.watching
        model = self.trainer.model
        parameters = list(model.parameters())
        before, random = deepcopy(model.state_dict()), torch.get_rng_state()
        result = work().clone()
        gradients = [parameter.grad for parameter in parameters]
        model.load_state_dict(before)  # a recording does nothing
        torch.set_rng_state(random)
        result.fill_(torch.nan)
        for gradient in gradients:
            assert gradient is not None
            gradient.fill_(torch.nan)

        def replay() -> None:
            self.replayed += 1
            result.copy_(work())
            for parameter, gradient in zip(parameters, gradients, strict=True):
                assert parameter.grad is not None
                assert gradient is not None
                gradient.copy_(parameter.grad)
                parameter.grad = None

        return replay, result


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_same_bits_replayed(chunk: int) -> None:
    """40 images in batches of 8, then in batches of 7, of which the last is too small to record.

    The second run starts at an epoch's last batch, as a resumed one may.
    """
    for batch in (8, 7):
        options = {"training.batch": batch, "training.epochs": 4, "training.chunk": chunk}
        options["model.warm_up_statistics"] = chunk == 1
        experiment, dataset = tiny_experiment(**options), tiny_dataset()
        plain = finish(Trainer(experiment, dataset))
        trainer = Trainer(experiment, dataset)
        recorder = Again(trainer)
        trainer.replayed = Replayed(
            trainer._forward_backward, list(trainer.model.parameters()), recorder, batch
        )
        if batch == 7:
            started = Trainer(experiment, dataset)
            for _ in zip(range(5), started.run_epoch(), strict=False):
                pass
            trainer.load_state(started.state())
        finish(trainer)
        assert (recorder.warmed, recorder.recorded) == (WARM_UP, 1)
        assert recorder.replayed >= 4
        assert trainer.rows == plain.rows
        assert state_digest(trainer.model.state_dict()) == state_digest(plain.model.state_dict())


def test_what_cannot_be_recorded() -> None:
    gesture = tiny_experiment(**{"model.head": "gesture", "model.head_widths": [6, 5]})
    model = Trainer(gesture, tiny_dataset()).model
    with pytest.raises(UserError, match=r"training\.cuda_graph: expected false .* draws a seed"):
        check_recordable("tiny", model, Ranks())
    plain = tiny_experiment()
    with pytest.raises(UserError, match=r"training\.cuda_graph: .* several processes"):
        check_recordable("tiny", Trainer(plain, tiny_dataset()).model, Ranks(0, 2))
    with pytest.raises(ValueError, match="expected false where device is 'cpu'"):
        tiny_experiment(**{"training.cuda_graph": True})


def test_a_clip_of_events_is_copied_whole() -> None:
    """A still clip's steps lie in the same memory; those of a real one do not."""
    seen = []

    class Once:
        def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
            return work()

        def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
            result = torch.zeros(2)

            def replay() -> None:
                result.copy_(work())

            return replay, result

    def present(clip: Tensor, labels: Tensor) -> Tensor:
        seen.append(clip.clone())
        return torch.stack([clip.sum(), labels.sum()])

    for still in (False, True):
        replayed = Replayed(present, [], Once(), 2)
        for number in range(WARM_UP + 3):
            clip = torch.arange(6.0).view(3, 2) * (number + 1)
            clip = clip[:1].expand(3, 2) if still else clip
            labels = torch.full((2,), number)
            assert replayed(clip, labels).tolist() == [clip.sum(), labels.sum()]
            assert torch.equal(seen[-1], clip)
