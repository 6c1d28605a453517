"""What a batch is learned from: all steps or some, with one update or one a step."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from steadyspike import sequence
from steadyspike.train import tet_loss
from steadyspike.train.digest import state_digest
from steadyspike.train.trainer import Trainer
from tiny import finish, tiny_dataset, tiny_experiment

BATCH = 16


def trainer_of(**dotted: Any) -> Trainer:
    options = {"training.precision": "float64", "model.dropout": 0.0, **dotted}
    trainer = Trainer(tiny_experiment(**options), tiny_dataset())
    trainer.model.train()
    return trainer


def batch_of(trainer: Trainer) -> list[Tensor]:
    """Samples, labels and choices of a batch."""
    order = torch.arange(BATCH)
    ((_, samples, labels),) = trainer.dataset.train.gather([order], 0, 0)
    return [samples, labels, *trainer.passes.draw(0, order, 0)[0]]


def gradients(trainer: Trainer) -> list[Tensor]:
    return [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("learned", [{0}, {1, 3}, {2}, {0, 1, 2, 3}])
def test_chosen_steps_are_learned_from(learned: set[int], chunk: int) -> None:
    """Their loss alone, over T; of a still image, which the first layer computes once."""
    trainer = trainer_of(**{"training.chunk": chunk})
    inputs = batch_of(trainer)
    model = copy.deepcopy(trainer.model)
    scores = trainer.passes(*inputs, learned=learned)
    clip, labels = trainer.passes.clip(inputs[0], inputs[2]), inputs[1]
    with sequence(model, steps=4):
        logits = model(clip)
        each = [tet_loss(step[None], labels, steps=4, mse_weight=0.05) for step in logits]
        torch.stack([each[t] for t in sorted(learned)]).sum().backward()
    for ours, theirs in zip(gradients(trainer), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad)
    assert scores[0] == pytest.approx(BATCH * float(sum(each).detach()), rel=1e-6)
    # Statistics are of every step.
    for (name, ours), (_, theirs) in zip(
        trainer.model.named_buffers(), model.named_buffers(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize("rule", ["sltt", "ottt"])
def test_an_update_after_every_step(rule: str) -> None:
    """As a loop by hand: backward, optimizer, next step, with the state of the same membranes."""
    options = {"training.online_update": True, "training.chunk": 1, "model.rule": rule}
    trainer = trainer_of(**options)
    inputs = batch_of(trainer)
    model = copy.deepcopy(trainer.model)
    how = trainer.experiment.training
    optimizer = torch.optim.SGD(
        model.parameters(),
        how.learning_rate,
        momentum=how.momentum,
        weight_decay=how.weight_decay,
    )
    trainer._train_batch(inputs, None)
    clip, labels = trainer.passes.clip(inputs[0], inputs[2]), inputs[1]
    torch.manual_seed(0)
    norms, total = [], 0.0
    with sequence(model, steps=4):
        for frames in clip:
            optimizer.zero_grad()
            loss = tet_loss(model(frames[None]), labels, steps=4, mse_weight=how.mse_weight)
            loss.backward()
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]))
            optimizer.step()
            total += float(loss)
    for (name, ours), (_, theirs) in zip(
        trainer.model.state_dict().items(), model.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9, msg=name)
    loss, _, norm = trainer.scores[:, 0].tolist()
    assert loss == pytest.approx(BATCH * total, rel=1e-6)
    assert norm == pytest.approx(float(torch.stack(norms).norm()), rel=1e-6)


def test_steps_are_drawn_by_seed_epoch_and_batch() -> None:
    options = {"model.rule": "sltt_k", "training.backward_steps": 2}
    passes = trainer_of(**options).passes
    drawn = [passes.draw_steps(epoch, batch) for epoch in range(20) for batch in range(20)]
    again = trainer_of(**options).passes
    assert drawn == [again.draw_steps(epoch, batch) for epoch in range(20) for batch in range(20)]
    other = trainer_of(seeds=[1], **options).passes
    assert drawn != [other.draw_steps(epoch, batch) for epoch in range(20) for batch in range(20)]
    assert all(steps is not None and len(steps) == 2 for steps in drawn)
    counts = Counter(step for steps in drawn for step in steps or ())
    assert set(counts) == {0, 1, 2, 3}
    assert all(150 < count < 250 for count in counts.values())  # 200 expected, deviation 10
    assert trainer_of().passes.draw_steps(0, 0) is None


def test_every_step_drawn_is_sltt() -> None:
    """To the bit of the weights, epoch after epoch."""
    all_steps = trainer_of(**{"model.rule": "sltt_k", "training.backward_steps": 4})
    one, other = (
        state_digest(finish(each).model.state_dict()) for each in (all_steps, trainer_of())
    )
    assert one == other
