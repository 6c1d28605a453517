"""A trained network as a folder to share: weights, ``config.json``, and a model card.

The card is a README.md whose head is metadata as Hugging Face reads it. Nothing is uploaded.
"""

from pathlib import Path
from typing import Any

import jinja2
import yaml
from torch import nn

from steadyspike import __version__, commit
from steadyspike.data.published import PUBLISHED
from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import Measurement, Metrics
from steadyspike.evaluate.run import read_measurement
from steadyspike.evaluate.trained import CONFIG, Config, is_shared, open_network
from steadyspike.files import write_atomically
from steadyspike.train.config import Experiment
from steadyspike.train.digest import weights_sha256
from steadyspike.train.run import weights_file

THRESHOLDS = {
    "live": "computed from the batch at hand (OTS)",
    "fixed": "those learned for each step (OTS)",
    "layer": "one a layer, the mean of those learned for each step (OTS)",
    "constant": "constant",
}


def write_card(
    experiment: Experiment, folder: Path, out: Path, params: Path | None = None
) -> Config:
    """Write the network of a finished and evaluated run, of its first seed, to the folder ``out``.

    Args:
        experiment: of one seed.
        folder: of the run.
        out: a folder that does not exist, or is empty.
        params: the params.yaml of the run, by default the one beside its folder of runs.

    Raises:
        UserError: ``out`` holds something; the run is unfinished, not evaluated since it was
            trained, of other parameters or damaged, measured on held-out training images, or a
            shared network. Nothing is written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already: remove it or choose another name")
    if is_shared(folder):
        raise UserError(f"{folder}: has a card already: copy the whole folder")
    if experiment.dataset.validation is not None:
        raise UserError(
            f"{folder}: dataset.validation: measured on training images that were held out, "
            "expected the test images"
        )
    model, seen = open_network(experiment, folder)
    metrics, measured = read_measurement(experiment, folder)
    config = Config(
        library_version=__version__,
        commit=commit.describe(),
        command=_command(experiment, folder, params),
        parameters_sha256=experiment.fingerprint(),
        weights_sha256=weights_sha256(model.state_dict()),
        accuracy=measured.accuracy.last,
        test_images=metrics.evaluation.test_images,
        dataset=seen,
        experiment=_without_places(experiment),
    )
    card = _card(config, metrics, measured, model)
    write_atomically(out / "model.safetensors", weights_file(model.state_dict()))
    write_atomically(out / "README.md", card)
    write_atomically(out / CONFIG, config.model_dump_json(indent=2) + "\n")
    return config


def _command(experiment: Experiment, folder: Path, params: Path | None) -> str:
    """The command that trains and evaluates the run, for the current folder."""
    runs = folder.parent
    places = {"--params": params or runs.parent / "params.yaml", "--runs": runs}
    shown = ""
    for option, place in places.items():
        place = place.absolute()
        here = place.is_relative_to(Path.cwd())
        relative = str(place.relative_to(Path.cwd())) if here else place.name
        if relative not in ("params.yaml", "runs"):  # the defaults
            shown += f" {option} {relative}"
    name = experiment.name
    return f"steadyspike train {name}{shown} && steadyspike evaluate {name}{shown}"


def _without_places(experiment: Experiment) -> Experiment:
    """A folder of one's own images by its name alone: the path to it is nobody's business."""
    dataset = experiment.dataset
    if dataset.path is None:
        return experiment
    renamed = dataset.model_copy(update={"path": Path(dataset.path).name})
    return experiment.model_copy(update={"dataset": renamed})


def _card(config: Config, metrics: Metrics, measured: Measurement, model: nn.Module) -> str:
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("steadyspike.deploy", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
    ).get_template("card.md.j2")
    return template.render(
        metadata=yaml.safe_dump(_metadata(config), sort_keys=False, allow_unicode=True),
        config=config,
        experiment=config.experiment,
        model=config.experiment.model,
        evaluation=metrics.evaluation,
        measured=measured,
        thresholds=THRESHOLDS,
        published=PUBLISHED[config.dataset.name],
        weights=sum(parameter.numel() for parameter in model.parameters()),
    )


def _metadata(config: Config) -> dict[str, Any]:
    """The card's head: https://huggingface.co/docs/hub/model-cards names its keys."""
    published = PUBLISHED[config.dataset.name]
    return {
        "library_name": "steadyspike",
        "license": "mit",
        "pipeline_tag": "image-classification",
        "tags": ["spiking-neural-network", "snn", "neuromorphic", "online-learning"],
        **({"datasets": [published.hub]} if published.hub else {}),
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": config.experiment.name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "name": published.title,
                            "type": published.hub or config.dataset.name,
                            "split": "test",
                        },
                        "metrics": [
                            {
                                "type": "accuracy",
                                "name": "Test accuracy, %",
                                "value": config.accuracy,
                            }
                        ],
                    }
                ],
            }
        ],
    }
