import pytest
import torch

from steadyspike.bench import long_run
from steadyspike.bench.setting import Setting
from steadyspike.bench.tables import trained
from steadyspike.data.dataset import Split
from tiny import tiny_dataset

SETTING = Setting(image=(1, 12, 12), widths=(2, "P", 2), steps=1, chunk=1, batch=10, threads=1)


def test_images_come_to_stand_in_the_middle_of_black_ones() -> None:
    dataset = tiny_dataset(train=6, test=3, side=9)
    wide = long_run.padded(dataset, 12)
    assert isinstance(dataset.train, Split)
    assert isinstance(wide.train, Split)
    assert isinstance(wide.test, Split)
    assert wide.train.images.shape == (6, 1, 12, 12)
    assert wide.test.images.shape == (3, 1, 12, 12)
    assert torch.equal(wide.train.images[..., 1:10, 1:10], dataset.train.images)
    assert wide.train.images.sum() == dataset.train.images.sum()
    assert torch.equal(wide.train.labels, dataset.train.labels)


@pytest.mark.parametrize("budget", [0.0, 2.0])
def test_as_many_epochs_as_the_time_holds_and_at_least_one(
    budget: float, capsys: pytest.CaptureFixture[str]
) -> None:
    training = long_run.train_on(tiny_dataset(train=80), SETTING, budget)
    assert (training.epochs == 1) == (budget == 0.0)
    assert 60 * training.minutes == pytest.approx(training.epochs * training.seconds_an_epoch)
    assert 0 <= training.accuracy_last <= training.accuracy_best <= 100
    told = capsys.readouterr().err
    assert told.count("test accuracy") == training.epochs
    sentence = trained(training)
    assert "(1×12×12), T 1, K 1, batch 10" in sentence
    assert f"{training.epochs} epochs" in sentence
    assert f"test accuracy {training.accuracy_last:.2f} %" in sentence
