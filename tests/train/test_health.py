import pytest
import torch

from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR
from steadyspike.train.health import MOST_VARIANCE, SilenceWatch, exploding_layers
from steadyspike.train.trainer import Trainer
from tiny import tiny_dataset, tiny_experiment, train_epoch


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_a_layer_whose_bias_keeps_it_silent(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OTS, a bias far below any threshold; the layer after it gets nothing, but fires."""
    from steadyspike.kernels import _of_device

    monkeypatch.setenv("STEADYSPIKE_KERNELS", kernels)
    _of_device.cache_clear()
    options = {"model.stabilize_threshold": False, "training.learning_rate": 1e-9}
    trainer = Trainer(tiny_experiment(**options), tiny_dataset())
    norms = [(name, m) for name, m in trainer.model.named_modules() if isinstance(m, OSR)]
    neurons = [name for name, m in trainer.model.named_modules() if isinstance(m, LIF)]
    with torch.no_grad():
        norms[0][1].bias.fill_(-1000)
        norms[1][1].bias.fill_(3)
    train_epoch(trainer)
    assert trainer.rows[0].silent_layers == (neurons[0],)
    with torch.no_grad():
        norms[0][1].bias.fill_(3)
    train_epoch(trainer)
    assert trainer.rows[1].silent_layers == ()
    _of_device.cache_clear()


def test_nobody_looks_once_all_have_fired() -> None:
    trainer = Trainer(tiny_experiment(), tiny_dataset())
    batches = trainer.run_epoch()
    assert trainer.silence.watching
    next(batches)
    next(batches)
    assert not trainer.silence.watching
    assert all(layer.fired is None for layer in trainer.silence.layers.values())
    list(batches)
    trainer.finish_epoch()
    assert trainer.silence.watching  # a new epoch


def test_what_was_seen_before_a_break_counts() -> None:
    model = torch.nn.ModuleList([LIF(), LIF(), torch.nn.Linear(1, 1)])
    watch = SilenceWatch(model)
    watch.begin_epoch(torch.tensor([True, False]))
    assert watch.silent_layers() == ["1"]
    watch.begin_epoch()
    assert watch.silent_layers() == ["0", "1"]


def test_a_variance_out_of_proportion() -> None:
    trainer = Trainer(tiny_experiment(), tiny_dataset())
    assert exploding_layers(trainer.model) == []
    name, norm = next((n, m) for n, m in trainer.model.named_modules() if isinstance(m, OSR))
    norm.running_var[-1] = 2 * MOST_VARIANCE
    assert exploding_layers(trainer.model) == [name]
    train_epoch(trainer)
    assert trainer.rows[0].exploding_layers == (name,)
    assert exploding_layers(LIF()) == []
