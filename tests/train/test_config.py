"""params.yaml: mistakes are refused by their key; networks' options; the repository's own files."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.errors import UserError
from steadyspike.models import MODELS, build, option_names
from steadyspike.train.config import Experiment, load_experiment, load_experiments
from steadyspike.train.params import merge
from tiny import DEFAULTS, REPOSITORY, tiny_experiment, write_params

INFINITY = float("inf")
NAN = float("nan")


def refusal(root: Path, **dotted: Any) -> str:
    """The error for an experiment `a` with these keys; empty if there is none."""
    write_params(root, {"a": dotted})
    try:
        load_experiment(root / "params.yaml", "a")
    except UserError as error:
        message = str(error)
        assert message.startswith(f"{root / 'params.yaml'}: experiments.a")
        assert "\n" not in message
        return message.removeprefix(f"{root / 'params.yaml'}: experiments.a: ")
    return ""


OWN = {"dataset.name": "image_folder", "dataset.path": "mine", "dataset.size": 8}


@pytest.mark.parametrize(
    ("dotted", "expected"),
    [
        ({"training.step": 4}, "training.step: unknown key (did you mean steps?)"),
        ({"name": "b"}, ".name: unknown key"),
        ({"training.steps": 0}, "training.steps: should be greater than or equal to 1, got 0"),
        ({"training.steps": 4.0}, "training.steps: should be a valid integer, got 4.0"),
        ({"training.steps": True}, "training.steps: should be a valid integer, got True"),
        ({"training.batch": 10**7}, "training.batch: should be less than or equal to 1000000"),
        ({"training.learning_rate": 0}, "training.learning_rate: should be greater than 0"),
        ({"training.learning_rate": "fast"}, "should be a valid number, got 'fast'"),
        ({"training.learning_rate": NAN}, "should be a finite number, got nan"),
        ({"training.momentum": 1.0}, "training.momentum: should be less than 1"),
        ({"training.precision": "float16"}, "should be 'float32', 'tf32', 'bfloat16' or 'float64'"),
        ({"training.chunk": 5}, "training.chunk: at most training.steps (4), got 5"),
        ({"training.chunk": 0}, "training.chunk: should be greater than or equal to 1, got 0"),
        (
            {"model.online": False, "training.chunk": 2},
            "training.chunk: BPTT (model.online: false) sees all steps at once, so it must equal "
            "training.steps (4), got 2",
        ),
        (
            {"model.norm": "orc"},
            "model.norm: should be 'osr', 'per_step', 'linear', 'batch', 'ws',",
        ),
        ({"model.norm": ["osr"]}, "model.norm: should be 'osr', 'per_step', 'linear', 'batch', "),
        *(
            (
                {"model.norm": norm},
                f"model.norm '{norm}' sees all steps at once: online must be false (BPTT)",
            )
            for norm in ("tdbn", "tebn")
        ),
        (
            {"model.norm": "tdbn", "model.online": False, "training.chunk": 1},
            "training.chunk: BPTT (model.online: false) sees all steps at once, so it must equal",
        ),
        (
            {"model.norm": "tab", "model.online": False},
            "model.norm 'tab' has no gradient to earlier steps here: online must be true, not "
            "false (BPTT)",
        ),
        (
            {"model.norm": "ws", "model.warm_up_statistics": True},
            "model.warm_up_statistics must be false with norm 'ws'",
        ),
        ({"model.steps": 4}, "model.steps: unknown key"),
        ({"model.online": "yes"}, "model.online: should be a valid boolean, got 'yes'"),
        ({"model.tau": 0.5}, "model.tau must be at least 1 step, not 0.5"),
        ({"model.v_threshold": 0.0}, "model.v_threshold must be positive and finite, not 0.0"),
        ({"model.surrogate_slope": INFINITY}, "model.surrogate_slope must be positive and finite"),
        ({"model.dropout": 1.0}, "model.dropout must be at least 0 and below 1, not 1.0"),
        ({"model.fallback_ratio": 0.0}, "model.fallback_ratio must be positive, not 0.0"),
        (
            {
                "model.norm": "batch",
                "model.stabilize_threshold": False,
                "model.warm_up_statistics": True,
            },
            "model.warm_up_statistics must be false with norm 'batch'",
        ),
        (
            {"model.rule": "e_prop"},
            "model.rule must be one of 'ndot', 'ottt', 'sltt', 'sltt_k', not 'e_prop'",
        ),
        (
            {"model.rule": "ottt", "model.online": False},
            "model.rule 'ottt' is for online training: online must be true, not false (BPTT)",
        ),
        ({"model.rule": "sltt_k"}, "training.backward_steps: missing; model.rule sltt_k needs it"),
        (
            {"model.rule": "sltt_k", "training.backward_steps": 5},
            "training.backward_steps: at most training.steps (4), got 5",
        ),
        (
            {"training.backward_steps": 2},
            "training.backward_steps: only with model.rule sltt_k, got 2 with sltt",
        ),
        (
            {"training.online_update": True},
            "training.chunk: training.online_update steps the optimizer after every time step, so "
            "it must be 1, got 4",
        ),
        (
            {"training.online_update": True, "model.online": False},
            "training.online_update: BPTT (model.online: false) has its gradient after the last "
            "step alone, expected false, got true",
        ),
        ({"model.widths": []}, "model.widths: "),
        ({"model.widths": [16, "Q"]}, "model.widths.1"),
        ({"model.widths": [16, 0]}, "model.widths.1"),
        ({"model.widths": [True]}, "model.widths.0"),
        ({"model.name": "vgg"}, "model.name: expected one of: vggsnn, resnet19"),
        ({"model": None}, "model: should be"),
        ({"training": [1]}, "training: should be"),
        ({"dataset.name": 3}, "dataset.name: should be a valid string, got 3"),
        ({"dataset.augmentation": "all"}, "dataset.augmentation: expected one of none, flip"),
        ({"dataset.name": "mnist"}, "dataset.name: expected one of cifar10"),
        ({"dataset.path": "x"}, "dataset.path: embedded has no such option, got 'x'"),
        ({"dataset.channels": 1}, "dataset.channels: embedded has no such option, got 1"),
        (
            {"dataset.name": "image_folder", "dataset.size": 8},
            "dataset.path: missing; image_folder",
        ),
        ({"dataset.name": "image_folder", "dataset.path": "x"}, "dataset.size: missing; image_f"),
        ({**OWN, "dataset.size": 0}, "dataset.size: should be greater than or equal to 1, got 0"),
        ({**OWN, "dataset.path": 3}, "dataset.path: should be a valid string, got 3"),
        ({**OWN, "dataset.channels": 2}, "dataset.channels: should be 1 or 3, got 2"),
        ({"device": "gpu"}, "device: should be 'cpu' or 'cuda', got 'gpu'"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": [-1]}, "seeds.0: should be greater than or equal to 0, got -1"),
        ({"seeds": [2**63]}, "seeds.0: should be less than"),
        ({"seeds": [1, 2, 1]}, "seeds: each once, got [1, 2, 1]"),
        ({"model.widths": "x" * 10_000}, "model.widths: should be a valid list, got 'xxx"),
    ],
    ids=str,
)
def test_a_mistake_is_named_with_its_key(
    tmp_path: Path, dotted: dict[str, Any], expected: str
) -> None:
    message = refusal(tmp_path, **dotted)
    assert expected in message
    assert len(message) < 500


def test_several_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, **{"training.steps": 0, "model.norm": "x", "model.tao": 2.0})
    assert message.count("; ") == 2
    for key in ("training.steps", "model.norm", "model.tao"):
        assert key in message


def test_missing_defaults_are_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("experiments: {a: {training: {epochs: 1}}}")
    with pytest.raises(UserError, match=r"experiments\.a: .* training\.momentum: missing, in the"):
        load_experiments(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "dotted",
    [
        {"model.tau": 2},
        {"model.tau": INFINITY},
        {"model.fallback_ratio": INFINITY},
        {"training.weight_decay": 0},
        {"model.widths": ["P", 1, "P"]},
        {"model.widths": None},
        {"training.chunk": 1},
        {"model.online": False, "training.steps": 7, "training.chunk": 7},
        {"seeds": [2**63 - 1, 0]},
    ],
    ids=str,
)
def test_a_possible_experiment_is_accepted(tmp_path: Path, dotted: dict[str, Any]) -> None:
    assert refusal(tmp_path, **dotted) == ""


def test_one_bad_experiment_keeps_every_other_from_running(tmp_path: Path) -> None:
    write_params(tmp_path, {"good": {}, "bad": {"training.steps": 0}})
    with pytest.raises(UserError, match=r"experiments\.bad: training\.steps"):
        load_experiment(tmp_path / "params.yaml", "good")


def test_an_unknown_experiment_is_refused_with_the_known(tmp_path: Path) -> None:
    write_params(tmp_path, {"a": {}, "b": {}})
    with pytest.raises(UserError, match=r"experiments\.c: no such experiment, .*: a, b$"):
        load_experiment(tmp_path / "params.yaml", "c")
    (tmp_path / "params.yaml").write_text("experiments: {}")
    with pytest.raises(UserError, match=r"experiments\.c: no such experiment, .*: none$"):
        load_experiment(tmp_path / "params.yaml", "c")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
sections = {name: list(value) for name, value in DEFAULTS.items() if isinstance(value, dict)}
keys = st.sampled_from(
    [*DEFAULTS, *(f"{name}.{key}" for name, known in sections.items() for key in known)]
) | st.text("abc\n\u2028", min_size=1, max_size=4)


@given(st.dictionaries(keys, values, min_size=1, max_size=3))
def test_any_values_are_accepted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, dotted: dict[str, Any]
) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        write_params(root, {"a": dotted})
    except (AttributeError, TypeError):
        return  # a section and a key of it at once
    try:
        experiment = load_experiment(root / "params.yaml", "a")
    except UserError as error:
        assert "params.yaml: " in str(error)  # noqa: PT017
    else:
        assert 1 <= experiment.training.chunk <= experiment.training.steps


# The repository's own


PARAMS = [REPOSITORY / "params.yaml", *sorted(REPOSITORY.glob("pipelines/*/params.yaml"))]


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.parent.name)
def test_every_experiment_of_the_repository_is_possible(path: Path) -> None:
    experiments = load_experiments(path).values()
    assert len({experiment.fingerprint() for experiment in experiments}) == len(experiments) > 0


def test_the_default_pipeline_holds_the_papers_methods() -> None:
    experiments = load_experiments(REPOSITORY / "params.yaml")
    models = {name: experiment.model for name, experiment in experiments.items()}
    assert {
        name: (model.norm, model.stabilize_threshold, model.online)
        for name, model in models.items()
    } == {
        "per_step": ("per_step", False, True),
        "ots": ("per_step", True, True),
        "osr": ("osr", False, True),
        "osr_ots": ("osr", True, True),
        "linear": ("linear", False, True),
        "bptt": ("batch", False, False),
    }
    assert not any(model.warm_up_statistics for model in models.values())  # not the paper's
    # They differ in nothing else, or they could not be compared.
    assert len({str(experiment.training) for experiment in experiments.values()}) == 1


@pytest.mark.parametrize("name", MODELS)
def test_every_option_of_a_network_but_the_data_sets_is_a_key(name: str) -> None:
    model = merge(DEFAULTS["model"], {"name": name})
    if name != "vggsnn":
        del model["widths"]
    experiment = Experiment.model_validate({"name": "a", **DEFAULTS, "model": model})
    decided_elsewhere = {"in_channels", "num_classes", "image_size", "steps"}
    assert set(experiment.model.model_dump(exclude={"name"})) == (
        set(option_names(name)) - decided_elsewhere
    )


def test_an_option_left_out_is_that_of_the_class() -> None:
    experiment = Experiment.model_validate({"name": "a", **DEFAULTS, "model": {"name": "vggsnn"}})
    given = build("vggsnn", in_channels=1, num_classes=10, **experiment.model.options)
    assert repr(given) == repr(build("vggsnn", in_channels=1, num_classes=10))


@pytest.mark.parametrize(
    ("norm", "stabilize", "reset"), [("osr", True, "zero"), ("batch", False, "subtract")]
)
def test_options_reach_the_network(norm: str, stabilize: bool, reset: str) -> None:
    experiment = tiny_experiment(
        **{"model.norm": norm, "model.stabilize_threshold": stabilize, "model.reset": reset}
    )
    model = build("vggsnn", in_channels=1, num_classes=10, **experiment.model.options)
    neuron = model.features[0].neuron  # type: ignore[index, union-attr]
    assert (neuron.stabilize_threshold, neuron.reset, neuron.dropout) == (stabilize, reset, 0.2)
    kind = {"osr": "OSR", "batch": "BatchNorm"}[norm]
    assert type(model.features[0].norm).__name__ == kind  # type: ignore[index, union-attr]
