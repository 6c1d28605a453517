"""When a presentation begins and ends, what it refuses, and what one that fails leaves behind."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadyspike import sequence
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR, LinearNorm, PerStepBatchNorm


class Branches(nn.Module):
    """A norm and neurons, and a second such pair that runs only when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(OSR(2), LIF(stabilize_threshold=True))
        self.side = nn.Sequential(PerStepBatchNorm(2), LIF(stabilize_threshold=True))
        self.use_side = False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y + self.side(x) if self.use_side else y


def frames(t: int, seed: int = 0) -> Tensor:
    return torch.randn(t, 5, 2, 3, generator=torch.Generator().manual_seed(seed)) + 1


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, Tensor]) -> bool:
    after = module.state_dict()
    return after.keys() == before.keys() and all(
        torch.equal(after[name], before[name]) for name in before
    )


LONE = {
    "OSR": lambda: OSR(2),
    "PerStepBatchNorm": lambda: PerStepBatchNorm(2),
    "LinearNorm": lambda: LinearNorm(2),
    "LIF": LIF,
    "LIF with OTS": lambda: LIF(stabilize_threshold=True),
    "model": Branches,
}
each_module = pytest.mark.parametrize("make", LONE.values(), ids=LONE.keys())


# --- errors ---


@pytest.mark.parametrize("steps", [0, -1, 2.0, "4", True, None, torch.tensor(4)], ids=repr)
def test_steps_must_be_a_positive_integer(steps: Any) -> None:
    lif = LIF()
    with pytest.raises(ValueError, match="steps"), sequence(lif, steps=steps):
        pass
    with sequence(lif, steps=1):  # and nothing was begun
        lif(frames(1))


def test_a_model_without_norm_or_neuron_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear"), sequence(nn.Linear(2, 2), steps=1):
        pass


@each_module
def test_a_training_call_outside_is_refused(make: Any) -> None:
    module = make()
    before = snapshot(module)
    with pytest.raises(RuntimeError, match=r"training mode.*sequence"):
        module(frames(2))
    assert unchanged(module, before)
    with sequence(module, steps=2):
        module(frames(2))
    before = snapshot(module)
    with pytest.raises(RuntimeError, match=r"training mode.*sequence"):  # also after one
        module(frames(2))
    assert unchanged(module, before)


@each_module
@pytest.mark.parametrize("chunks", [(4,), (3, 1), (1, 1, 1, 1)], ids=str)
def test_more_steps_than_announced_are_refused(make: Any, chunks: tuple[int, ...]) -> None:
    module = make()
    before = snapshot(module)

    def body() -> None:
        with sequence(module, steps=3):
            for chunk in frames(4).split(chunks):
                module(chunk)

    with pytest.raises(RuntimeError, match=r"step 4.*steps=3"):
        body()
    assert unchanged(module, before)


@each_module
@pytest.mark.parametrize("presented", [0, 1, 2])
def test_a_training_body_that_ends_early_is_refused(make: Any, presented: int) -> None:
    module = make()
    before = snapshot(module)

    def body() -> None:
        with sequence(module, steps=3):
            if presented:
                module(frames(presented))

    with pytest.raises(RuntimeError, match=rf"{presented} of its 3 steps"):
        body()
    assert unchanged(module, before)
    with sequence(module, steps=3):  # and the next one is whole
        module(frames(3))


@each_module
@pytest.mark.parametrize("training", [True, False])
def test_presentations_do_not_nest(make: Any, training: bool) -> None:
    module = make().train(training)
    with sequence(module, steps=2):
        with pytest.raises(RuntimeError, match="nest"), sequence(module, steps=2):
            pass
        module(frames(2))  # the outer one goes on


@pytest.mark.parametrize("part_first", [True, False])
def test_a_part_of_a_model_in_a_presentation_is_in_it_too(part_first: bool) -> None:
    model = Branches()
    pair = (model.main, model) if part_first else (model, model.main)
    with sequence(pair[0], steps=1):
        with pytest.raises(RuntimeError, match="nest"), sequence(pair[1], steps=1):
            pass
        model.main(frames(1))
    with sequence(model, steps=1):  # nothing of the refused one is left open
        model(frames(1))


# --- a body that raises ---


@each_module
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("presented", [1, 3])
def test_a_body_that_raises_folds_nothing_in(
    make: Any, error: type[BaseException], presented: int
) -> None:
    torch.manual_seed(3)
    module = make()
    torch.manual_seed(3)
    fresh = make()
    before = snapshot(module)

    def body() -> None:
        with sequence(module, steps=3):
            module(frames(presented, seed=9))
            raise error

    with pytest.raises(error):
        body()
    assert unchanged(module, before)
    # and what comes next is as if it had never been
    outputs = []
    for each in (module, fresh):
        with sequence(each, steps=2):
            outputs.append(each(frames(2, seed=1)))
    assert torch.equal(*outputs)
    assert unchanged(module, snapshot(fresh))


# --- what is folded in ---


@each_module
def test_folded_in_when_left_and_not_before(make: Any) -> None:
    module = make()
    before = snapshot(module)
    with sequence(module, steps=3):
        for chunk in frames(3).split([1, 2]):
            module(chunk)
            assert unchanged(module, before)
    names = [name for name in before if name.split(".")[-1].startswith("running")]
    for name in names:
        if not name.startswith("side"):
            assert not torch.equal(module.state_dict()[name], before[name]), name


def test_modules_left_out_keep_theirs() -> None:
    model = Branches()
    before = snapshot(model.side)
    with sequence(model, steps=2):
        model(frames(2))
    assert unchanged(model.side, before)
    model.use_side = True
    with sequence(model, steps=2):
        model(frames(2))
    assert not unchanged(model.side, before)


def test_a_branch_cut_short_is_refused() -> None:
    model = Branches()
    before = snapshot(model)

    def body() -> None:
        with sequence(model, steps=2):
            model(frames(1))
            model.use_side = True
            model(frames(1))

    with pytest.raises(RuntimeError, match="1 of its 2 steps"):
        body()
    assert unchanged(model, before)


def test_frozen_parts_of_a_training_model_keep_theirs() -> None:
    model = Branches()
    model.use_side = True
    model.side.eval()
    before, main_before = snapshot(model.side), snapshot(model.main)
    with sequence(model, steps=3):
        for chunk in frames(3).split([1, 2]):
            model(chunk)
    assert unchanged(model.side, before)
    assert not unchanged(model.main, main_before)


def test_a_frozen_norm_normalizes_as_at_inference_within_a_training_presentation() -> None:
    model = nn.Sequential(OSR(2).eval(), LIF())
    with sequence(model, steps=2):
        normalized = model[0](frames(2))
        model[1](normalized)
    assert torch.equal(normalized, model[0](frames(2)))


# --- evaluation ---


@each_module
def test_evaluation_folds_nothing_in_and_may_end_early(make: Any) -> None:
    module = make()
    with sequence(module, steps=2):  # thresholds to keep
        module(frames(2))
    before = snapshot(module)
    module.eval()
    for presented in (0, 1, 3):
        with sequence(module, steps=3):
            if presented:
                module(frames(presented, seed=4))
    module(frames(3, seed=4))
    assert unchanged(module, before)
    module.train()
    with sequence(module, steps=2):
        module(frames(2))


@pytest.mark.parametrize("make", [LIF, Branches])
def test_a_lone_call_in_evaluation_is_a_whole_presentation(make: Any) -> None:
    module = make().eval()
    x = frames(3)
    with sequence(module, steps=3):
        announced = torch.cat([module(step) for step in x.split(1)])
    assert torch.equal(module(x), announced)
    assert torch.equal(module(x), announced)  # nothing is carried from call to call
    apart = torch.cat([module(step) for step in x.split(1)])
    assert not torch.equal(apart, announced)


def test_evaluation_refuses_more_steps_than_announced() -> None:
    lif = LIF().eval()
    with pytest.raises(RuntimeError, match=r"step 3.*steps=2"), sequence(lif, steps=2):
        lif(frames(3))
