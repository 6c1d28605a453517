"""Every value of the package's environment variables is understood, or refused by name."""

from pathlib import Path

import pytest

from steadyspike import variables
from steadyspike.errors import UserError
from steadyspike.variables import data_root, kernels_enabled, torchrun, worker_count
from tiny import command, in_process, make_project, one_line, refused

TORCHRUN = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*TORCHRUN, variables.DATA, variables.WORKERS, variables.KERNELS):
        monkeypatch.delenv(name, raising=False)


def test_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(24))
    assert worker_count() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    for text in ("", " ", "auto"):
        monkeypatch.setenv("STEADYSPIKE_WORKERS", text)
        assert worker_count() == 3
    for text in ("0", "off", "false", "False", "no", "none"):
        monkeypatch.setenv("STEADYSPIKE_WORKERS", text)
        assert worker_count() == 0
    monkeypatch.setenv("STEADYSPIKE_WORKERS", " 7 ")
    assert worker_count() == 7
    for text in ("many", "~", "-1", "1.5", "1e3", "0x4", "\uff14", "true", "1025", "9" * 5000):
        monkeypatch.setenv("STEADYSPIKE_WORKERS", text)
        with pytest.raises(UserError) as caught:
            worker_count()
        one_line(caught.value, "STEADYSPIKE_WORKERS: expected a whole number of 0 to 1024, found")


def test_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels_enabled()
    for text, on in (
        *dict.fromkeys(("", "on", "ON", "1", "true", "yes", "auto"), True).items(),
        *dict.fromkeys(("off", "OFF", "0", "false", "no", "none", " off "), False).items(),
    ):
        monkeypatch.setenv("STEADYSPIKE_KERNELS", text)
        assert kernels_enabled() is on, text
    for text in ("~", "2", "cuda", "disabled"):
        monkeypatch.setenv("STEADYSPIKE_KERNELS", text)
        with pytest.raises(UserError) as caught:
            kernels_enabled()
        one_line(caught.value, f"STEADYSPIKE_KERNELS: expected on or off, found {text!r}")


def test_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for text, folder in (
        ("", Path("datasets")),
        ("~", tmp_path),
        ("~/sets", tmp_path / "sets"),
        ("/large/disk", Path("/large/disk")),
        ("a b", Path("a b")),
    ):
        monkeypatch.setenv("STEADYSPIKE_DATA", text)
        assert data_root() == folder
    Path("file").touch()
    for text in ("0", "off", "false", "none", "on", "file", "~nobody-of-this-name/x"):
        monkeypatch.setenv("STEADYSPIKE_DATA", text)
        with pytest.raises(UserError) as caught:
            data_root()
        one_line(caught.value, f"STEADYSPIKE_DATA: expected a folder, found {text!r}")
    Path("off").mkdir()
    monkeypatch.setenv("STEADYSPIKE_DATA", "off")
    assert data_root() == Path("off")


def test_what_torchrun_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchrun() is None
    for text in ("", " ", "1"):
        monkeypatch.setenv("WORLD_SIZE", text)
        assert torchrun() is None
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert torchrun() == variables.Torchrun(1, 2, 1, 2, "localhost:29500")
    for name, values in {
        "WORLD_SIZE": ("abc", "0", "-2", "1.0", "2 2"),
        "RANK": ("2", "-1", "x", ""),
        "LOCAL_RANK": ("2", "y"),
        "LOCAL_WORLD_SIZE": ("0", "z"),
        "MASTER_PORT": ("99999", "0", "http", ""),
        "MASTER_ADDR": ("",),
    }.items():
        for value in values:
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                with pytest.raises(UserError) as caught:
                    torchrun()
                one_line(caught.value, f"{name}: ")


@pytest.mark.slow
def test_a_command_refuses_them_before_it_begins(tmp_path: Path) -> None:
    make_project(tmp_path)
    for name in ("STEADYSPIKE_DATA", "STEADYSPIKE_KERNELS", "STEADYSPIKE_WORKERS"):
        Path("file").touch()
        refused(command(tmp_path, "train", "tiny", **{name: "file"}), f"{name}: expected")
    refused(in_process(tmp_path, "train", "tiny", WORLD_SIZE="abc"), "WORLD_SIZE: expected")
    refused(in_process(tmp_path, "train", "tiny", WORLD_SIZE="2"), "RANK: missing")
    assert not (tmp_path / "runs").exists()
    result = in_process(tmp_path, "doctor", STEADYSPIKE_KERNELS="maybe")
    assert "problem  environment" in result.stdout
