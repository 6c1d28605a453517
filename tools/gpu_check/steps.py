"""Time of a training step beside its convolutions alone, memory against T, a profile."""

import traceback
from collections.abc import Callable, Iterator

import torch
from common import (
    Options,
    compared,
    experiment,
    noise,
    peak_gigabytes,
    release,
    seconds_of,
    setting,
)
from record import Row

from steadyspike.bench.convolutions import convolutions_alone
from steadyspike.bench.records import Setting
from steadyspike.bench.training_step import online
from steadyspike.errors import first_line
from steadyspike.train.determinism import make_deterministic
from steadyspike.train.trainer import Trainer

TARGET_RATIO, TARGET_FLAT = 1.6, 1.05
TOP = 25  # kernels in the profile's table


def measure(options: Options) -> Iterator[Row]:
    make_deterministic()
    yield from _of_precision(options, "bfloat16")
    yield from _memory(options)
    if not options.rehearse:
        yield from _of_precision(options, "tf32")
        yield from _of_precision(options, "float32")


def _of_precision(options: Options, precision: str) -> Iterator[Row]:
    for chunk in (4, 1):
        s = setting(options, precision=precision, chunk=chunk)
        measures: list[Callable[[Setting, Options], Row]] = [_step]
        if (precision, chunk) == ("bfloat16", 4):
            measures.append(_profile)
        for measure in measures:
            try:
                yield measure(s, options)
            except Exception as error:
                traceback.print_exc()
                yield Row(f"{precision} K {chunk}", first_line(error), holds=False)
            release()


def _step(s: Setting, options: Options) -> Row:
    """The step eager and as a graph, and its convolutions alone."""
    data: dict[str, float] = {}
    for name, make in online(s).items():
        kind = "graph" if "graph" in name else "eager"
        release()
        step = make()
        data[f"{kind}_seconds"] = seconds_of(step.run, options)
        data[f"{kind}_peak_gigabytes"] = peak_gigabytes()
        del step
    release()
    convolve = convolutions_alone(s, torch.channels_last, ours=True)
    data["convolutions_seconds"] = seconds_of(convolve, options)
    if s.device == "cuda":  # without the time to launch them, which a graph hides
        by_graph = seconds_of(_recorded(convolve), options)
        data["convolutions_seconds"] = min(data["convolutions_seconds"], by_graph)
    best = min(data.get("graph_seconds", data["eager_seconds"]), data["eager_seconds"])
    ratio = best / data["convolutions_seconds"]
    data |= {"images_per_second": s.batch / best, "ratio": ratio}
    graph = f"graph {1e3 * data['graph_seconds']:.2f} ms, " if "graph_seconds" in data else ""
    return Row(
        f"{s.precision} K {s.chunk}",
        f"{graph}eager {1e3 * data['eager_seconds']:.2f} ms, {s.batch / best:,.0f} images/s, "
        f"convolutions {1e3 * data['convolutions_seconds']:.2f} ms, ratio {ratio:.2f}, "
        f"peak {data['eager_peak_gigabytes']:.2f} GB",
        target=compared(ratio, "at most", TARGET_RATIO) if s.chunk > 1 else "",
        data=data,
    )


def _recorded(run: Callable[[], None]) -> Callable[[], None]:
    """``run`` as a CUDA graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _profile(s: Setting, options: Options) -> Row:
    """The kernels of a step, as it runs fastest, by time."""
    from torch.profiler import ProfilerActivity, profile

    steps = 1 if options.rehearse else 3
    step = list(online(s).values())[-1]()
    for _ in range(3):
        step.run()
    cuda = s.device == "cuda"
    kind = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
    with profile(activities=[kind]) as found:
        for _ in range(steps):
            step.run()
        if cuda:
            torch.cuda.synchronize()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    kernels = [
        (getattr(e, key) / steps / 1e3, e.count / steps, e.key) for e in found.key_averages()
    ]
    kernels.sort(reverse=True)
    total = sum(milliseconds for milliseconds, _, _ in kernels)
    short = [(ms, count) for ms, count, _ in kernels if count and ms / count < 4e-3]
    count = sum(each for _, each, _ in kernels)
    table = [["Kernel", "ms a step", "Share, %", "Calls"]]
    table += [
        [name[:110], f"{ms:.3f}", f"{100 * ms / total:.1f}", f"{calls:g}"]
        for ms, calls, name in kernels[:TOP]
    ]
    return Row(
        f"profile, {s.precision} K {s.chunk}",
        f"{count:.0f} kernels a step, busy {total:.2f} ms; {sum(c for _, c in short):.0f} of them "
        f"under 4 µs, together {sum(ms for ms, _ in short):.2f} ms",
        data={"milliseconds": total, "kernels": [list(kernel) for kernel in kernels]},
        table=table,
    )


def _memory(options: Options) -> Iterator[Row]:
    """Peak memory of the training loop in bfloat16, by T: online with K 1, and BPTT."""
    dataset = noise(24, 8, 12) if options.rehearse else noise(256, 128, 32)
    curves: dict[str, dict[int, float]] = {}
    for name, online_training in (("vggsnn-osr_ots", True), ("vggsnn-bptt", False)):
        label = "online, K 1" if online_training else "BPTT"
        curve = curves[label] = {}
        failure = ""
        for steps in (2, 4) if options.rehearse else (2, 4, 8, 16, 30):
            chunk = 1 if online_training else steps
            training = {"steps": steps, "chunk": chunk, "precision": "bfloat16"}
            release()
            try:
                trainer = Trainer(experiment(options, name, training=training), dataset)
                for _ in trainer.run_epoch():
                    pass
            except torch.cuda.OutOfMemoryError as error:
                failure = f"; T {steps}: {first_line(error)}"
                break
            curve[steps] = peak_gigabytes()
            del trainer
        text = ", ".join(f"T {steps} {peak:.2f}" for steps, peak in curve.items())
        flat = max(curve.values()) / min(curve.values()) if min(curve.values()) else 0.0
        yield Row(
            f"peak memory, {label}",
            f"{text} GB, largest to smallest {flat:.2f}{failure}",
            target=compared(flat, "at most", TARGET_FLAT) if online_training else "",
            data={"gigabytes": {str(steps): peak for steps, peak in curve.items()}},
        )
