"""What a reader must be told of layers, and nothing where all is well."""

import csv
import json
from pathlib import Path

import pytest
import report_samples as samples
from page_reader import read

from steadyspike.report import write_paper_report, write_report
from steadyspike.report.caveats import MOST_VARIANCE, caveats, layers, named, spans
from steadyspike.report.sources import Pipeline, read_pipeline

AIL = {
    "silent_layers": {
        2: "features.3.neuron",
        3: "features.3.neuron features.5.neuron",
        4: "features.3.neuron",
        7: "features.3.neuron",
    },
    "exploding_layers": {11: "features.0.norm", 12: "features.0.norm"},
}
SILENT = (
    "OSR: not one spike in a whole epoch of training from features.3.neuron (epochs 2 to 4 and 7) "
    "and features.5.neuron (epoch 3)."
)
EXPLODING = (
    "OSR: a running variance over 1,000,000, where about 1 is usual, in features.0.norm (epochs 11 "
    "and 12)."
)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return samples.write_pipeline(tmp_path / "pipeline", leave_out=("linear",))


def all_of(pipeline: Pipeline) -> list[str]:
    return caveats(named(pipeline.runs))


def reports(folder: Path) -> dict[str, str]:
    write_report(folder, folder / "out")
    return {path.name: path.read_text() for path in (folder / "out").iterdir()}


def test_the_limit_is_that_of_training() -> None:
    from steadyspike.train import health

    assert MOST_VARIANCE == health.MOST_VARIANCE


def test_nothing_is_said_where_all_is_well(pipeline: Path) -> None:
    assert all_of(read_pipeline(pipeline)) == []
    text = read_html(pipeline)
    assert "not one spike" not in text


def read_html(folder: Path) -> str:
    write_report(folder, folder / "out")
    return read(folder / "out" / "index.html").text


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        ([3], "epoch 3"),
        ([3, 4], "epochs 3 and 4"),
        ([3, 4, 5], "epochs 3 to 5"),
        ([1, 3, 4, 5, 9, 10], "epochs 1, 3 to 5, 9 and 10"),
    ],
)
def test_epochs_in_words(epochs: list[int], words: str) -> None:
    assert spans(epochs) == words


# Layers


def test_layers_and_their_epochs(pipeline: Path) -> None:
    samples.ail(pipeline, "osr", AIL)
    assert all_of(read_pipeline(pipeline)) == [SILENT, EXPLODING]


def test_layers_that_ail_alike_are_named_together_and_the_rest_counted(pipeline: Path) -> None:
    names = [f"features.{place}.neuron" for place in range(8)]
    samples.ail(pipeline, "osr", {"silent_layers": {1: " ".join(names)}})
    (sentence,) = layers(named(read_pipeline(pipeline).runs))
    assert sentence.endswith("features.4.neuron and features.5.neuron (epoch 1) and 2 more layers.")
    assert "features.6" not in sentence


def test_layers_of_every_seed(pipeline: Path) -> None:
    experiments = samples.EXPERIMENTS | {"osr": samples.EXPERIMENTS["osr"] | {"seeds": [0, 8]}}
    samples.write_params(pipeline, experiments)
    home = pipeline / "runs" / "osr" / "seeds" / "8"
    home.mkdir(parents=True)
    rows = samples.history("osr")
    rows[4]["silent_layers"] = "features.3.neuron"
    samples.write_csv(home / "history.csv", rows)
    assert layers(named(read_pipeline(pipeline).runs)) == [
        "OSR, seed 8: not one spike in a whole epoch of training from features.3.neuron (epoch 5)."
    ]


def test_they_are_told_on_the_page_and_in_every_form(pipeline: Path) -> None:
    samples.ail(pipeline, "osr", AIL)
    files = reports(pipeline)
    page = read(pipeline / "out" / "index.html").text
    training = page.partition("Loss and accuracy after each epoch")[2]
    for sentence in (SILENT, EXPLODING):
        assert sentence in training
        for table in ("table2", "table4"):
            assert sentence in json.loads(files[f"{table}.json"])["caveats"]
            assert f"**Caution:** {sentence}" in files[f"{table}.md"]
    rows = list(csv.DictReader(files["training.csv"].splitlines()))
    found = {
        (row["experiment"], int(row["epoch"])): (row["silent_layers"], row["exploding_layers"])
        for row in rows
        if row["silent_layers"] or row["exploding_layers"]
    }
    silent, exploding = AIL["silent_layers"], AIL["exploding_layers"]
    assert found == {
        ("osr", epoch): (silent.get(epoch, ""), exploding.get(epoch, ""))
        for epoch in silent | exploding
    }


def test_hostile_layers_are_refused_or_shown(pipeline: Path) -> None:
    samples.ail(pipeline, "osr", {"silent_layers": {1: "<script>alert(1)</script>"}})
    assert "<script>" in read_html(pipeline)
    assert "script" not in read(pipeline / "out" / "index.html").tags


def test_the_papers_tables_tell_it_where_it_holds(tmp_path: Path) -> None:
    pipelines = samples.copy_pipelines(tmp_path / "pipelines")
    for run in ("cifar10/vggsnn-osr_ots", "cifar10/vggsnn-per_step", "imagenet/sew_resnet34-ots"):
        samples.write_paper_run(pipelines, run)
    home = pipelines / "imagenet" / "runs" / "sew_resnet34-ots"
    rows = samples.history("ots", 100)
    rows[0]["silent_layers"] = "layers.1.neuron"
    samples.write_csv(home / "history.csv", rows)
    write_paper_report(pipelines, tmp_path / "out")

    def told(table: str) -> str:
        return "\n".join(json.loads((tmp_path / "out" / f"{table}.json").read_text())["caveats"])

    silent = "imagenet/sew_resnet34-ots: not one spike in a whole epoch of training from layers.1"
    assert silent in told("table2")
    assert silent in told("figure2b")
    assert silent not in told("table1")
