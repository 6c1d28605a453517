import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench_samples import bench, measurement

from steadyspike.bench.records import Machine, Training
from steadyspike.bench.setting import Setting
from steadyspike.bench.summary import groups
from steadyspike.bench.tables import comparison, notes, where
from steadyspike.bench.write import BEGIN, END, markdown, render, save, show
from steadyspike.errors import UserError

ROOT = Path(__file__).parents[2]


def test_the_table_of_a_comparison() -> None:
    (group,) = groups(bench())
    table = comparison(bench(), group)
    assert table.title == "vggsnn, 3×32×32, T 4, batch 8, float32"
    assert table.column("framework") == [
        "steadyspike (fused), K 1",
        "steadyspike (fused), K 4",
        "steadyspike (plain torch), K 1",
        "SpikingJelly (BPTT)",
    ]
    row = table.to_markdown().splitlines()[4]
    assert row == (
        "| steadyspike (fused), K 1 | 4.00 | 2.00 to 8.00 | 1.50 | 50.0 | 100 | 11.0 | as it is |"
    )
    assert table.column("outside")[1] == ""  # not measured for every row
    assert table.column("speed") == [1.5, 3.0, 0.75, 1.0]


def test_without_a_peer_the_ratio_is_of_plain_torch() -> None:
    group = [m for m in groups(bench())[0] if m.contender != "spikingjelly-bptt"]
    assert comparison(bench(), group).columns[3].header == "Times steadyspike (plain torch)"


def test_the_page_says_where_what_differs_and_what_is_missing() -> None:
    text = markdown(bench())
    assert "A processor, 2 of 2 cores, AVX2, steadyspike 0.1.0, torch 2.15.0, 2026-01-02" in text
    assert "commit 0123456" in text
    assert "snnTorch (BPTT): not measured: not installed." not in text
    assert "- snnTorch (BPTT): not measured: not installed" in text
    assert "- SpikingJelly (BPTT): LIFNode in multi-step mode" in text
    assert "| `embedded` | float32 | 8 | 2.500 | 1.25 |" in text
    assert where(bench(changed=True)).endswith("and later changes")


def test_a_training_run_is_told_on_the_page_and_in_the_readme(tmp_path: Path) -> None:
    training = Training(
        dataset="fashion_mnist",
        setting=Setting(image=(1, 32, 32), chunk=4, batch=128),
        minutes=9.54,
        epochs=12,
        seconds_an_epoch=47.7,
        accuracy_last=91.25,
        accuracy_best=91.5,
        on="A GPU",
        date="2026-01-02T03:04:05+00:00",
    )
    told = (
        "vggsnn with OSR and OTS on, trained on fashion_mnist (1×32×32), T 4, K 4, batch 128, "
        "float32, on A GPU: 12 epochs in 9.5 minutes (47.7 s each), test accuracy 91.25 %, best "
        "91.50 %, 2026-01-02."
    )
    save(bench(training=training), tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    render(tmp_path, [readme])
    assert told in readme.read_text()
    assert told in (tmp_path / "bench-cpu.md").read_text()


def test_a_busy_machine_is_told() -> None:
    busy = bench().machine.model_copy(update={"load": 1.6})
    assert "load 1.6 on 2 cores" in notes(bench(machine=busy))[-1]
    assert not any("idle" in note for note in notes(bench()))


def test_a_failure_is_told_once_for_all_precisions() -> None:
    skipped = [
        {"contender": "snntorch", "precision": p, "steps": 4, "reason": "gone"}
        for p in ("float32", "bfloat16")
    ]
    assert sum("gone" in note for note in notes(bench(skipped=skipped))) == 1


def test_every_figure_is_drawn_and_is_well_formed(tmp_path: Path) -> None:
    save(bench(), tmp_path)
    written = render(tmp_path)
    names = sorted(path.name for path in written)
    assert names == [
        "bench-cpu-chunk.svg",
        "bench-cpu-memory.svg",
        "bench-cpu-speed.svg",
        "bench-cpu.md",
    ]
    for path in written:
        if path.suffix == ".svg":
            root = ElementTree.fromstring(path.read_text())
            text = "".join(root.itertext())
            assert "style" in {element.tag.rpartition("}")[2] for element in root}
            assert "steadyspike (fused)" in text or "float32" in text
    links = re.findall(r"\]\(([^)]+)\)", (tmp_path / "bench-cpu.md").read_text())
    assert {path.name for path in written} - {"bench-cpu.md"} == set(links)


def test_from_the_same_measurements_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        save(bench(), folder)
        files.append({path.name: path.read_bytes() for path in render(folder)})
    assert files[0] == files[1]


def test_figures_need_two_points_to_be_a_curve(tmp_path: Path) -> None:
    save(bench(measurements=[measurement("steadyspike", [1.0])]), tmp_path)
    assert [path.name for path in render(tmp_path)] == ["bench-cpu.md", "bench-cpu-speed.svg"]


def test_a_readme_gets_the_tables_of_every_device_between_its_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n")
    folder = tmp_path / "docs"
    save(bench(), folder)
    gpu = bench().machine.model_dump() | {"device": "cuda", "gpu": "A GPU"}
    on_gpu = [measurement("steadyspike", [0.01], setting=Setting(device="cuda", batch=128))]
    save(bench(machine=Machine.model_validate(gpu), measurements=on_gpu), folder)
    assert readme in render(folder, [readme])
    text = readme.read_text()
    assert text.startswith(f"# Mine\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nThe rest.\n")
    assert "old" not in text
    assert text.index("A GPU") < text.index("A processor")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / link).exists(), link
    before = text
    render(folder, [readme])
    assert readme.read_text() == before


@pytest.mark.parametrize("text", ["no markers\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_readme_without_markers_is_refused_before_anything_is_written(
    tmp_path: Path, text: str
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    save(bench(), tmp_path)
    with pytest.raises(UserError, match=r"--readme: .*README\.md: expected a line <!-- bench -->"):
        render(tmp_path, [readme])
    assert readme.read_text() == text
    assert not list(tmp_path.glob("*.svg"))


def test_nothing_measured_yet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no bench-\*\.json: run `steadyspike bench --out"):
        render(tmp_path)
    save(bench(), tmp_path)
    with pytest.raises(UserError, match=r"--readme: .*: No such file"):
        render(tmp_path, [tmp_path / "none.md"])


def test_on_a_terminal_it_prints_tables_to_look_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    show(bench())
    out = capsys.readouterr().out
    assert "steadyspike (fused), K 1" in out
    assert "| ---" not in out
    assert "A processor, 2 of 2 cores" in out


def test_the_repositorys_own_pages_are_of_its_own_measurements(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    measured = sorted((ROOT / "docs").glob("bench-*.json"))
    if BEGIN not in readme or not measured:
        pytest.skip("nothing has been measured for the README")
    (tmp_path / "docs").mkdir()
    for path in measured:
        shutil.copy(path, tmp_path / "docs")
    (tmp_path / "README.md").write_text(readme)
    written = render(tmp_path / "docs", [tmp_path / "README.md"])
    for path in written:
        assert path.read_text() == (ROOT / path.relative_to(tmp_path)).read_text(), path.name


def test_into_a_pipe_it_prints_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    show(bench())
    out = capsys.readouterr().out
    assert out.startswith("# Measured on A processor\n")
    assert "| steadyspike (fused), K 1 | 4.00 |" in out
    assert "![" not in out
    assert "\x1b" not in out
