"""Same bits elsewhere: a sample, and that each row can fail."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import elsewhere
import operators
import places
import pytest
import torch
import torch.nn.functional as F
from elsewhere import REPOSITORY, Place

from steadyspike.train.config import Experiment
from tiny import make_project, read_json, trained

EXPERIMENTS = dict(operators.every_experiment(REPOSITORY))
REFUSED = {operator for several in operators.REFUSED.values() for operator in several}


def test_what_torch_documents_as_refused_is_known_here() -> None:
    assert len(operators.documented()) > 15
    assert operators.documented().keys() <= operators.REFUSED.keys()


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_no_experiment_calls_what_gives_other_bits(experiment: Experiment) -> None:
    called = operators.operators(experiment)
    assert {"convolution", "convolution_backward", "_fused_sgd_"} <= called
    assert not called & REFUSED
    if experiment.device == "cpu":
        assert not called & operators.BY_PROCESSOR


def test_a_small_twin_keeps_what_decides_the_operators() -> None:
    for experiment in EXPERIMENTS.values():
        twin = operators.small(experiment)
        assert twin.training.batch < experiment.training.batch
        shrunk = {"widths", "blocks", "hidden_width", "head_widths"}
        kept, had = (e.model.model_dump(exclude=shrunk) for e in (twin, experiment))
        assert kept == had
        assert twin.dataset == experiment.dataset
        assert (twin.training.chunk == 1) == (experiment.training.chunk < experiment.training.steps)


def _gradient(function: object, *shape: int) -> None:
    x = torch.rand(shape, requires_grad=True)
    function(x).sum().backward()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (
            lambda: _gradient(lambda x: F.interpolate(x, 8, mode="bilinear"), 1, 1, 4, 4),
            {"upsample_bilinear2d_backward"},
        ),
        (
            lambda: _gradient(lambda x: F.adaptive_avg_pool2d(x, 2), 1, 1, 5, 5),
            {"_adaptive_avg_pool2d_backward"},
        ),
        (lambda: torch.rand(9).median(0), {"median"}),
        (lambda: torch.tensor([1, 2]).bincount(torch.rand(2)), {"bincount"}),
        (lambda: torch.tensor([1, 2]).bincount(), set()),
        (lambda: torch.rand(3).sqrt(), {"sqrt"}),
        (lambda: torch.rand(3) ** 0.5, {"sqrt"}),
        (lambda: torch.rand(3) ** 2, set()),
        (lambda: torch.rand(3).rsqrt().reciprocal(), set()),
    ],
)
def test_a_call_that_must_not_be_is_seen(call: object, found: set[str]) -> None:
    with operators.Calls() as calls:
        call()  # type: ignore[operator]
    assert calls.names & (REFUSED | operators.BY_PROCESSOR) == found


def test_no_kernel_of_ours_adds_in_no_order() -> None:
    kernels = list((REPOSITORY / "src/steadyspike/kernels").glob("cuda*.py"))
    assert len(kernels) > 3
    assert not [path.name for path in kernels if "tl.atomic" in path.read_text()]


def project(root: Path) -> Path:
    """What `trained` has trained, without its runs but with their digests, as if checked out."""
    root.mkdir(parents=True)
    make_project(root)
    (root / "src").symlink_to(REPOSITORY / "src")
    (root / "reports").mkdir()
    recorded = {"tiny": read_json(trained() / "runs/tiny/digests.json")}
    (root / "reports/digests.json").write_text(json.dumps(recorded))
    return root


@pytest.mark.skipif(not shutil.which("taskset"), reason="taskset is not installed")
def test_the_same_bits_with_everything_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))  # compiled kernels
    changed = elsewhere.places(tmp_path)
    together = elsewhere.all_together(changed)
    assert all(place.name in together.name for place in changed)
    project(tmp_path / together.folder)
    row = places.verified(tmp_path, together, ["tiny"])
    assert row.holds, capfd.readouterr().err


def test_what_takes_too_long_has_failed(tmp_path: Path) -> None:
    slow = ("sh", "-c", "sleep 60; true")  # which holds the pipes: it must end too
    began = time.monotonic()
    done = elsewhere.run(tmp_path, tmp_path, elsewhere.HERE, *slow, minutes=0.01)
    assert done.returncode == 124
    assert time.monotonic() - began < 30


def test_what_differs_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = "a: equal, 9 tensors after batches 1\nb: DIFFERS: bias differs after batch 1\n"
    done = subprocess.CompletedProcess([], 1, told, "")
    monkeypatch.setattr(elsewhere, "run", lambda *arguments: done)
    (tmp_path / "checkout").mkdir()
    row = places.verified(tmp_path, elsewhere.HERE, ["a", "b"])
    assert (row.held, row.tried) == (1, 2)
    assert "bias differs after batch 1" in capfd.readouterr().err


def test_verdicts_are_read() -> None:
    told = (
        "osr: equal, 120 tensors after batches 1, 2, 5\n"
        "ots: DIFFERS: classifier.bias differs after batch 1\n"
        "bptt: equal, 30 tensors after batches 1\n"
    )
    assert places.read_verdicts(told) == (2, 150, 5)
    assert places.read_verdicts("") == (0, 0, 0)


def test_an_emulated_processor_tells_of_nothing_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    place = elsewhere.emulated("Haswell", tmp_path)
    assert place is not None
    told = (Path(place.before[2]) / "proc/cpuinfo").read_text()
    assert "avx2" in told
    assert "avx512" not in told
    older = elsewhere.emulated(elsewhere.WITHOUT_AVX2, tmp_path)
    assert older is not None
    told = (Path(older.before[2]) / "proc/cpuinfo").read_text()
    assert "sse2" in told
    assert "avx" not in told
    monkeypatch.setattr(shutil, "which", lambda name: None)
    row = places.on_processor(tmp_path, "Haswell", ["tiny"], 1)
    assert (row.held, row.tried) == (0, 1)
    assert "not installed" in row.figures


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose two experiments have been trained."""
    (tmp_path / "dvc.lock").write_text("a")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/table.md").write_text("b")
    (tmp_path / "params.yaml").write_text("defaults: {}\nexperiments: {one: {}, two: {}}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "history.csv").write_text("epoch\n")
    return tmp_path


TRAINED = subprocess.CompletedProcess([], 0, "Running stage 'train@one'\n" * 3, "")


def test_a_pipeline_that_changes_nothing_holds(checkout: Path) -> None:
    row = places.outcome(checkout, "here", time.monotonic(), TRAINED)
    assert row.holds
    assert row.figures.startswith("3 stages run, 2 experiments trained")


@pytest.mark.parametrize("change", ["lock", "report", "new report", "no run", "failed"])
def test_a_pipeline_that_changes_anything_does_not(checkout: Path, change: str) -> None:
    done = TRAINED
    match change:
        case "lock":
            (checkout / "dvc.lock").write_text("c")
        case "report":
            (checkout / "reports/table.md").unlink()
        case "new report":
            (checkout / "reports/other.md").write_text("c")
        case "no run":
            (checkout / "runs/two/history.csv").unlink()
        case "failed":
            done = subprocess.CompletedProcess([], 1, "", "no room")
    assert not places.outcome(checkout, "here", time.monotonic(), done).holds


def test_changes_add_up() -> None:
    both = Place("a", ("nice",), {"TZ": "UTC"}).together(Place("b", folder="x", user=3))
    assert both == Place("a, b", ("nice",), {"TZ": "UTC"}, "x", 3)
