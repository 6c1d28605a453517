"""The repository's pages and locks."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for pattern in ("*.md", "docs/**/*.md", "pipelines/**/*.md", "reports/*.md")
    for page in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


def headings(page: Path) -> set[str]:
    """The anchors of a Markdown page, as GitHub names them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda lock: lock.name
)
def test_a_lock_has_hashes_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    packages = re.split(r"(?m)^(?=[A-Za-z0-9])", text)
    assert all("--hash=sha256:" in package for package in packages if "==" in package)


def test_a_clone_of_git_for_windows_has_the_same_bytes(tmp_path: Path) -> None:
    """core.autocrlf=true would end each line of a script with a carriage return."""
    origin = tmp_path / "origin"
    names = (".gitattributes", ".dvc/.gitattributes", "tools/train.sh", "data.dvc", "Makefile")
    remote = sorted(ROOT.glob(".dvc/embedded/files/md5/*/*"))[:20]
    for path in [*(ROOT / name for name in names), *remote]:
        copy = origin / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for command in (["init"], ["add", "."], ["commit", "-m", "a"]):
        subprocess.run(["git", *own, *command], cwd=origin, check=True, capture_output=True)
    clone = ["git", "clone", "--quiet", "-c", "core.autocrlf=true", f"file://{origin}", "clone"]
    subprocess.run(clone, cwd=tmp_path, check=True)
    for path in [path for path in origin.rglob("*") if path.is_file() and ".git" not in path.parts]:
        copy = tmp_path / "clone" / path.relative_to(origin)
        assert copy.read_bytes() == path.read_bytes(), path
