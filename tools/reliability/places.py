"""The same bits in other environments: cores, locale, folder, hash seed, container, processors."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from page import REPOSITORY, Row
from project import Failure, report

EMULATOR = "qemu-x86_64"
PROCESSOR = "Haswell"  # the first with AVX2; without AVX-512
#: Flags in /proc/cpuinfo that such a processor does not have.
LATER_FLAGS = re.compile(r"\b(?:avx512\w*|avx_vnni|amx_\w+)\b ?")
LOCALE = "tr_TR.UTF-8"  # a comma in numbers; the upper case of i is not I
CLAIM = "The default pipeline, trained anew, leaves the committed dvc.lock and reports unchanged"


@dataclass(frozen=True)
class Place:
    """An environment to run in."""

    name: str
    prefix: tuple[str, ...] = ()  # before each command
    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "checkout"  # of the repository's clone


def measure(work: Path, few: bool) -> Iterator[Row]:
    """Rows: the first batches in each place, then the whole pipeline trained anew."""
    changed = places(work)
    together = all_together(changed)
    for place in [together] if few else [cores(2), *changed]:
        yield verified(check_out(work, place), place)
    yield on_another_processor(work, 1 if few else 2)
    if few:
        return
    for place in (cores(2), together):
        yield retrained(check_out(work / f"retrained {place.folder}", place), place)
    yield retrained_in_a_container()


def cores(count: int) -> Place:
    """The first ``count`` of the processor cores."""
    chosen = sorted(os.sched_getaffinity(0))[:count]
    prefix = ("taskset", "--cpu-list", ",".join(map(str, chosen)))
    return Place(f"{len(chosen)} visible core{'s' * (len(chosen) > 1)}", prefix)


def places(work: Path) -> list[Place]:
    """Places with one thing changed; the locale is compiled into ``work``."""
    return [
        cores(1),
        locale(work / "locales"),
        Place("time zone Pacific/Kiritimati", variables={"TZ": "Pacific/Kiritimati"}),
        Place("hash seed 1", variables={"PYTHONHASHSEED": "1"}),
        Place("folder `a place/ö`", folder="a place/ö"),
    ]


def locale(folder: Path) -> Place:
    """`LOCALE`, compiled by localedef."""
    folder.mkdir(parents=True, exist_ok=True)
    language, _, encoding = LOCALE.partition(".")
    command = ["localedef", "-i", language, "-f", encoding, str(folder / LOCALE)]
    subprocess.run(command, capture_output=True)
    variables = {"LOCPATH": str(folder), "LC_ALL": LOCALE}
    done = subprocess.run(
        ["locale", "decimal_point"], env=os.environ | variables, capture_output=True, text=True
    )
    if done.stdout.strip() != ",":
        raise RuntimeError(f"localedef could not compile {LOCALE} (Debian: package locales)")
    return Place(f"locale {LOCALE}", variables=variables)


def all_together(places: Sequence[Place]) -> Place:
    """All changes at once."""
    return Place(
        ", ".join(place.name for place in places),
        tuple(word for place in places for word in place.prefix),
        {name: value for place in places for name, value in place.variables.items()},
        next((place.folder for place in places if place.folder != Place.folder), Place.folder),
    )


def emulated(work: Path) -> Place | None:
    """The processor `PROCESSOR`, with a /proc/cpuinfo to match; None without an emulator."""
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        return None
    prefix = work / PROCESSOR
    (prefix / "proc").mkdir(parents=True, exist_ok=True)
    own = Path("/proc/cpuinfo").read_text()
    flags = re.sub(r"(?m)^flags.*$", lambda line: LATER_FLAGS.sub("", line[0]), own)
    (prefix / "proc" / "cpuinfo").write_text(flags)
    # It takes every file that it finds below the prefix from there.
    return Place(f"emulated {PROCESSOR}", (emulator, "-L", str(prefix), "-cpu", PROCESSOR))


def check_out(work: Path, place: Place) -> Path:
    """A clone of the last commit with its data, in the place's folder below ``work``."""
    root = work / place.folder
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, root], check=True)
        run(root, Place("here"), "dvc", "pull", "--quiet", "data.dvc")
    return root


def run(root: Path, place: Place, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a checkout, with its own code and this environment's packages."""
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        **place.variables,
    }
    return subprocess.run(
        [*place.prefix, *command],
        cwd=root,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def experiments(root: Path) -> list[str]:
    """The names in its params.yaml."""
    from steadyspike.train.params import read_yaml

    return list(read_yaml(root / "params.yaml")["experiments"])


def verified(
    root: Path, place: Place, names: Sequence[str] = (), batches: int | None = None
) -> Row:
    """`steadyspike verify` in one place: the first batches against the committed digests."""
    names = names or experiments(root)
    limit = () if batches is None else ("--batches", str(batches))
    began = time.monotonic()
    done = run(root, place, sys.executable, "-m", "steadyspike", "verify", *names, *limit)
    equal = re.findall(r"(?m)^\S+: equal, (\d+) tensors after batches", done.stdout)
    if len(equal) < len(names):
        report(Failure(f"{place.name}: {done.stdout}{done.stderr[-2000:]}"))
    return Row(
        f"The first batches give the committed digests: {place.name}",
        len(equal),
        len(names),
        f"{sum(map(int, equal)):,} tensors equal; {time.monotonic() - began:.0f} s",
    )


def on_another_processor(work: Path, batches: int) -> Row:
    """As `verified`, of the first batches alone: an emulator is slow."""
    place = emulated(work)
    if place is None:
        claim = f"The first batches give the committed digests: emulated {PROCESSOR}"
        return Row(claim, 0, 1, f"not tried: {EMULATOR} is not installed (Debian: qemu-user)")
    return verified(check_out(work, place), place, batches=batches)


def retrained(root: Path, place: Place) -> Row:
    """The default pipeline, on a clone without runs and without DVC's cache of them."""
    began = time.monotonic()
    done = run(root, place, "tools/train.sh")
    minutes = (time.monotonic() - began) / 60
    changed = run(root, Place("here"), "git", "status", "--porcelain", "--", "dvc.lock", "reports")
    trained = len(list(root.glob("runs/*/history.csv")))
    held = (done.returncode, changed.stdout, trained) == (0, "", len(experiments(root)))
    if not held:
        report(Failure(f"{place.name}: {changed.stdout}{done.stdout[-2000:]}{done.stderr[-2000:]}"))
    figures = f"{trained} experiments trained in {minutes:.1f} min"
    return Row(f"{CLAIM}: {place.name}", int(held), 1, figures)


def retrained_in_a_container() -> Row:
    """The image built and the pipeline trained in it, which docker/test.sh does and compares."""
    claim = f"{CLAIM}: in the container"
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        return Row(claim, 0, 1, "not tried: no Docker engine answers (docker/engine.sh starts one)")
    command = ["docker/test.sh", "build", "one_machine"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        report(Failure(f"docker/test.sh: {done.stdout[-2000:]}{done.stderr[-2000:]}"))
    return Row(claim, int(done.returncode == 0), 1, "`docker/test.sh build one_machine`")
