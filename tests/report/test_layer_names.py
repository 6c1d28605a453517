"""Every layer of every network has a plain name of its own."""

import pytest
from torch import nn

from report import samples
from steadyspike.models import build
from steadyspike.report.layer_names import plain_name
from steadyspike.snn.neuron import LIF
from steadyspike.train.config import ModelOptions
from steadyspike.train.params import merge


def options(**model: object) -> ModelOptions:
    content = merge(samples.settings("osr").model_dump(), {"model": model})
    for key in ("widths", "head", "head_widths") if model.get("name", "vggsnn") != "vggsnn" else ():
        content["model"].pop(key)
    return type(samples.settings("osr")).model_validate(content).model


def names(network: nn.Module, model: ModelOptions) -> list[str]:
    paths = [path for path, module in network.named_modules() if isinstance(module, LIF)]
    return [plain_name(path, model) for path in paths]


def test_poolings_are_not_counted() -> None:
    model = options(widths=[4, "P", 4, 4, "P", 8])
    network = build("vggsnn", in_channels=1, num_classes=10, widths=[4, "P", 4, 4, "P", 8])
    assert names(network, model) == ["conv 1", "conv 2", "conv 3", "conv 4"]
    assert plain_name("features.5.norm", model) == "conv 4"


def test_the_gesture_head_and_the_papers_widths() -> None:
    model = options(widths=None)
    network = build("vggsnn", in_channels=2, num_classes=11, head="gesture")
    assert names(network, model)[-3:] == ["conv 8", "linear 1", "linear 2"]


@pytest.mark.parametrize("name", ["resnet19", "sew_resnet34", "nf_resnet34"])
def test_residual_networks(name: str) -> None:
    extra = {"image_size": 32} if name == "resnet19" else {}
    found = names(build(name, in_channels=3, num_classes=10, **extra), options(name=name))
    assert len(set(found)) == len(found)
    assert {"block 1.1, conv 1", "block 1.1, conv 2"} <= set(found)
    assert not [plain for plain in found if "stages" in plain or "neuron" in plain]


@pytest.mark.parametrize("path", ["features.1.neuron", "features.9", "features.x", "other", ""])
def test_what_is_of_no_known_form_keeps_its_path(path: str) -> None:
    assert plain_name(path, options(widths=[4, "P", 4])) == path
