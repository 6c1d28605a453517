"""Places to run in: fewer cores, another locale, time zone, hash seed, folder or user, emulated."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from steadyspike.train.params import read_yaml

REPOSITORY = Path(__file__).parents[2]
EMULATOR = "qemu-x86_64"
#: Of the emulator's models, all without AVX-512: the oldest with AVX2, one of Intel's later, AMD's.
PROCESSORS = ("Haswell", "Skylake-Client", "EPYC")
WITHOUT_AVX2 = "Nehalem"
_USER = 4321  # nobody's, here as anywhere
_LOCALE = "tr_TR"  # a comma in numbers, and an i that is not the capital I's
#: What a processor of none of the models above has, as /proc/cpuinfo calls it.
_LATER = re.compile(r"\b(?:avx512\w*|avx_vnni|amx_\w+)\b ?")
_SINCE_AVX = re.compile(r"\b(?:avx\w*|fma|f16c|bmi[12]|movbe|v?aes|vpclmulqdq|gfni|amx_\w+)\b ?")


@dataclass(frozen=True)
class Place:
    """What surrounds a run there."""

    name: str
    before: tuple[str, ...] = ()  # words before the command
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "checkout"
    user: int | None = None

    def together(self, other: "Place") -> "Place":
        """Both at once; a folder or a user of its own is kept."""
        return Place(
            f"{self.name}, {other.name}",
            self.before + other.before,
            self.environment | other.environment,
            other.folder if other.folder != "checkout" else self.folder,
            self.user if other.user is None else other.user,
        )


HERE = Place("nothing changed")


def cores(count: int) -> Place:
    """The first that this process may use; fewer, if there are not as many."""
    chosen = sorted(os.sched_getaffinity(0))[:count]
    name = "1 visible core" if len(chosen) == 1 else f"{len(chosen)} visible cores"
    return Place(name, ("taskset", "--cpu-list", ",".join(map(str, chosen))))


def places(work: Path) -> list[Place]:
    """Each with one thing changed, as far as this machine can; files it needs go to ``work``."""
    changed = [
        cores(1),
        another_locale(work),
        Place("time zone Pacific/Kiritimati", environment={"TZ": "Pacific/Kiritimati"}),
        Place("hash seed 1", environment={"PYTHONHASHSEED": "1"}),
        Place("folder `a place/ö`", folder="a place/ö"),
    ]
    if os.geteuid() == 0:
        changed.append(Place(f"user {_USER}", user=_USER))
    return changed


def another_locale(work: Path) -> Place:
    """Turkish, compiled into ``work`` where the machine can; else the system's plainest."""
    folder = work / "locales"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{_LOCALE}.UTF-8"
    compile_it = ["localedef", "-i", _LOCALE, "-f", "UTF-8", str(folder / name)]
    environment = {"LOCPATH": str(folder), "LC_ALL": name}
    try:
        subprocess.run(compile_it, capture_output=True)
        told = subprocess.run(
            ["locale", "decimal_point"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return Place("locale C", environment={"LC_ALL": "C"})
    if told.stdout.strip() != ",":
        return Place("locale C", environment={"LC_ALL": "C"})
    return Place(f"locale {name}", environment=environment)


def all_together(several: Iterable[Place]) -> Place:
    """One place with every change."""
    together, *others = several
    for other in others:
        together = together.together(other)
    return together


def emulated(model: str, work: Path) -> Place | None:
    """A processor of that model, with its own /proc/cpuinfo; None without an emulator."""
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        return None
    prefix = work / f"of {model}"
    (prefix / "proc").mkdir(parents=True, exist_ok=True)
    lacking = _SINCE_AVX if model == WITHOUT_AVX2 else _LATER
    told = Path("/proc/cpuinfo").read_text()
    # Only of the flags: other lines may hold such words too.
    told = re.sub(r"(?m)^flags.*$", lambda flags: lacking.sub("", flags[0]), told)
    (prefix / "proc" / "cpuinfo").write_text(told)
    # It looks for every file below the prefix first. What it cannot do of a model it tells at each
    # start; the pinned code asks for none of that.
    return Place(f"emulated {model}", (emulator, "-L", str(prefix), "-cpu", model))


def check_out(work: Path, place: Place, repository: Path = REPOSITORY) -> Path:
    """A clone of the last commit with its data, in the place's folder and its user's."""
    root = work / place.folder
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", str(repository), str(root)], check=True)
        pull = ["dvc", "pull", "--quiet", "--remote", "embedded", "data.dvc"]
        subprocess.run(pull, cwd=root, env=environment(work, root, HERE), check=True)
    return root


def environment(work: Path, root: Path, place: Place) -> dict[str, str]:
    """That of somebody who has set up the checkout ``root``, in that place."""
    home = work / ("home" if place.user is None else f"home of {place.user}")
    home.mkdir(exist_ok=True)
    if place.user is not None:
        os.chown(home, place.user, place.user)
    # DVC asks for a name, and the number has none here.
    names = {} if place.user is None else {"USER": "somebody", "LOGNAME": "somebody"}
    kept = {
        name: os.environ[name] for name in ("LANG", "TERM", "XDG_CACHE_HOME") if name in os.environ
    }
    return {
        **kept,
        **names,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        "HOME": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        **place.environment,
    }


def run(
    work: Path, root: Path, place: Place, *command: str, minutes: float = 60
) -> "subprocess.CompletedProcess[str]":
    """A command in the checkout ``root``, in that place; one that takes too long has failed."""
    before: tuple[str, ...] = ()
    if place.user is not None:
        # Nobody else's folders on the way there, only these.
        for folder in (work, *root.parents):
            if folder.is_relative_to(work):
                folder.chmod(0o755)
        ids = str(place.user)
        before = ("setpriv", "--reuid", ids, "--regid", ids, "--clear-groups")
        # The interpreter may lie in root's home: it may be read, and nothing else.
        before += ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    words = (*before, *place.before, *command)
    with subprocess.Popen(
        words,
        cwd=root,
        env=environment(work, root, place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # whatever it has started too
            process.communicate()
            return subprocess.CompletedProcess(words, 124, "", f"more than {minutes:g} min")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def own(root: Path, place: Place) -> None:
    """Gives the checkout to the place's user."""
    if place.user is not None:
        for path in (root, *root.rglob("*")):
            os.chown(path, place.user, place.user, follow_symlinks=False)


def experiments(root: Path) -> list[str]:
    """The names in its params.yaml."""
    return list(read_yaml(root / "params.yaml")["experiments"])
