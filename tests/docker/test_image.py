"""The Dockerfile, by its text: what an engine would need minutes to show."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "docker/Dockerfile"
#: Each instruction on one line, in order.
INSTRUCTIONS = [
    re.sub(r"\s+", " ", instruction).strip()
    for instruction in re.findall(
        r"^[A-Z]+ (?:.*\\\n)*.*$",
        re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE),
        re.MULTILINE,
    )
]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed for this platform")
    said = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_base_can_be_chosen_and_is_cudas_by_default() -> None:
    assert INSTRUCTIONS[0] == "ARG BASE_IMAGE=nvidia/cuda:13.2.0-base-ubuntu24.04"
    bases = [line.split()[1] for line in INSTRUCTIONS if line.startswith("FROM ")]
    assert bases == ["${BASE_IMAGE}", "system", "system"]


def test_it_ends_as_a_user_by_number() -> None:
    user = [line for line in INSTRUCTIONS if line.startswith("USER ")][-1]
    uid, gid = re.fullmatch(r"USER (\d+):(\d+)", user).groups()  # type: ignore[union-attr]
    assert int(uid) > 0
    assert int(gid) > 0


def test_every_package_comes_by_its_hash() -> None:
    installs = [
        part
        for line in INSTRUCTIONS
        for part in line.split("&&")
        if re.search(r"pip .*install", part) and "--editable" not in part
    ]
    assert len(installs) == 3  # uv itself, by uv, by pip
    assert all("--require-hashes" in install for install in installs)


def test_nothing_but_metadata_follows_the_source() -> None:
    after = INSTRUCTIONS[INSTRUCTIONS.index("COPY --chown=1000:1000 . .") + 1 :]
    assert {line.split()[0] for line in after} == {"USER", "ENTRYPOINT", "CMD"}


def test_what_the_build_sends_exists_and_holds_what_a_run_reads() -> None:
    """The context is a list of names: a file that moves must not drop out of the image unseen."""
    kept = [
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert all(list(REPOSITORY.glob(name)) for name in kept)
    for needed in ("src", "data.dvc", ".dvc/embedded", ".dvc/config", "dvc.yaml", "params.yaml"):
        assert needed in kept
    assert not {".git", ".venv", ".env", "datasets", "runs", "."} & set(kept)


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(
    "script",
    sorted([*REPOSITORY.glob("docker/**/*.sh"), *REPOSITORY.glob("tools/*.sh")]),
    ids=lambda script: str(script.relative_to(REPOSITORY)),
)
def test_every_script_can_be_read(script: Path) -> None:
    shell = "sh" if script.read_text().startswith("#!/bin/sh") else "bash"
    assert subprocess.run([shell, "-n", script]).returncode == 0
