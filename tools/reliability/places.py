"""Same bits elsewhere: in other surroundings, on emulated processors; what a GPU would refuse."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import container
import elsewhere
from elsewhere import HERE, REPOSITORY, Place, check_out
from rows import Row

COMMAND = ".venv/bin/python tools/reliability places"
PYTHON = sys.executable


def measure(work: Path, few: bool) -> Iterator[Row]:
    """The rows of this part, the quickest first."""
    work.chmod(0o755)  # another user goes through it
    yield from operator_rows(few)
    root = check_out(work, HERE)
    names = ["osr_ots"] if few else elsewhere.experiments(root)
    changed = elsewhere.places(work)
    together = elsewhere.all_together(changed)
    for place in [together] if few else [elsewhere.cores(2), *changed]:
        yield verified(work, place, names)
    for model in elsewhere.PROCESSORS[: 1 if few else None]:
        yield on_processor(work, model, names, 1 if few else 2)
    if few:
        return
    yield without_avx2(work)
    for place in (elsewhere.cores(2), together):
        yield retrained(work, place)
    yield retrained_in_a_container(work)


def operator_rows(few: bool) -> Iterator[Row]:
    """No operator that a GPU refuses to do the same twice, none that MKL does by the processor."""
    from operators import BY_PROCESSOR, REFUSED, documented, every_experiment, operators

    refused = {operator for several in REFUSED.values() for operator in several}
    unknown = sorted(documented().keys() - REFUSED)
    all_of_them, clean, by_processor, called = 0, 0, 0, set[str]()
    on_cpu = 0
    for name, experiment in every_experiment(REPOSITORY):
        if few and not name.startswith("default"):
            continue
        found = operators(experiment)
        called |= found
        all_of_them += 1
        clean += notify(name, "a GPU refuses", found & refused)
        if experiment.device == "cpu":
            on_cpu += 1
            by_processor += notify(name, "MKL chooses by the processor", found & BY_PROCESSOR)
    notify("torch", "documented as refused, unknown here", set(unknown))
    yield Row(
        "`use_deterministic_algorithms(True)` holds on CUDA for every experiment: none calls an "
        "operator that torch documents as refused",
        clean if not unknown else 0,
        all_of_them,
        f"{len(called)} operators called, {len(documented())} documented as refused; looked at "
        "as they are called on a CPU, no GPU was asked",
        COMMAND,
    )
    yield Row(
        "No experiment on the CPU calls an operator whose code MKL chooses by the processor",
        by_processor,
        on_cpu,
        f"of {', '.join(f'`{name}`' for name in sorted(BY_PROCESSOR))}",
        COMMAND,
    )


def notify(name: str, what: str, found: set[str]) -> bool:
    """Whether nothing was found; what was found goes to standard error."""
    if found:
        print(f"places: {name}: {what}: {', '.join(sorted(found))}", file=sys.stderr)
    return not found


def verified(work: Path, place: Place, names: list[str], batches: int | None = None) -> Row:
    """The first batches in one place, compared with the committed digests."""
    root = check_out(work, place)
    limit = () if batches is None else ("--batches", str(batches))
    began = time.monotonic()
    verify = (PYTHON, "-m", "steadyspike", "verify", *names, *limit)
    done = elsewhere.run(work, root, place, *verify)
    equal, tensors, last = read_verdicts(done.stdout)
    if equal < len(names):
        print(f"places: {place.name}: {done.stdout}{done.stderr[-2000:]}", file=sys.stderr)
    return Row(
        f"The first batches give the committed digests: {place.name}",
        equal,
        len(names),
        f"{tensors:,} tensors equal, up to batch {last}; {time.monotonic() - began:.0f} s",
        COMMAND,
    )


def read_verdicts(told: str) -> tuple[int, int, int]:
    """Experiments that are equal, their tensors, the last batch, as `steadyspike verify` tells."""
    found = re.findall(r"(?m)^\S+: equal, (\d+) tensors after batches .*?(\d+)$", told)
    return len(found), sum(int(n) for n, _ in found), max((int(b) for _, b in found), default=0)


def on_processor(work: Path, model: str, names: list[str], batches: int) -> Row:
    """As `verified`, on an emulated processor without AVX-512."""
    place = elsewhere.emulated(model, work)
    if place is None:
        return not_tried(f"emulated {model}", len(names))
    return verified(work, place, names, batches)


def not_tried(what: str, of: int) -> Row:
    claim = f"The first batches give the committed digests: {what}"
    reason = f"not tried: {elsewhere.EMULATOR} is not installed (Debian: qemu-user)"
    return Row(claim, 0, of, reason, COMMAND)


def without_avx2(work: Path) -> Row:
    """One that cannot give the same bits: told in one line, and it trains."""
    claim = "A processor without AVX2 trains, after one line that says that its bits differ"
    model = elsewhere.WITHOUT_AVX2
    place = elsewhere.emulated(model, work)
    if place is None:
        return Row(claim, 0, 1, f"not tried: no {elsewhere.EMULATOR}", COMMAND)
    root = check_out(work, place)
    verify = (PYTHON, "-m", "steadyspike", "verify", "osr_ots", "--batches", "1")
    done = elsewhere.run(work, root, place, *verify)
    # The emulator has words of its own.
    own = [line for line in done.stderr.splitlines() if line.startswith("steadyspike:")]
    told = len(own) == 1 and "no AVX2" in own[0]
    trained = done.returncode in (0, 1) and done.stdout.startswith("osr_ots: ")
    if not (told and trained):
        print(f"places: {place.name}: {done.stdout}{done.stderr[-2000:]}", file=sys.stderr)
    figures = f"{place.name}; exit status {done.returncode}"
    return Row(claim, int(told and trained), 1, figures, COMMAND)


CLAIM = "The default pipeline, trained anew, gives the committed dvc.lock and reports"


def retrained(work: Path, place: Place) -> Row:
    """`make train` on a clone of the last commit, in one place."""
    pipeline = work / f"pipeline {place.name[:12]}"
    root = check_out(pipeline, place)
    elsewhere.own(root, place)
    began = time.monotonic()
    done = elsewhere.run(pipeline, root, place, "tools/train.sh")
    return outcome(root, place.name, began, done)


def retrained_in_a_container(work: Path) -> Row:
    """`docker compose up train` on a clone of the last commit."""
    claim = f"{CLAIM}: in the container"
    obstacle = container.engine_obstacle()
    if obstacle:
        return Row(claim, 0, 1, f"not tried: {obstacle}", COMMAND)
    root = check_out(work / "container", HERE)
    obstacle = container.build(root)
    if obstacle:
        return Row(claim, 0, 1, f"not tried: {obstacle}", COMMAND)
    began = time.monotonic()
    return outcome(root, "in the container", began, container.train(root))


def outcome(root: Path, where: str, began: float, done: "subprocess.CompletedProcess[str]") -> Row:
    """Whether everything was trained, and nothing that is committed has changed."""
    minutes = (time.monotonic() - began) / 60
    stages = len(re.findall(r"Running stage '", done.stdout))
    trained = len(list(root.glob("runs/*/history.csv")))
    status = subprocess.run(
        ["git", "-c", "safe.directory=*", "status", "--porcelain", "--", "dvc.lock", "reports"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    same = status.returncode == 0 and not status.stdout
    held = same and done.returncode == 0 and trained == len(elsewhere.experiments(root))
    if not held:
        said = f"{status.stdout}{status.stderr}{done.stdout[-2000:]}{done.stderr[-2000:]}"
        print(f"places: {where}: exit status {done.returncode}\n{said}", file=sys.stderr)
    figures = f"{stages} stages run, {trained} experiments trained in {minutes:.1f} min"
    return Row(f"{CLAIM}: {where}", int(held), 1, figures, COMMAND)
