"""The training loop on CIFAR-shaped images in the GPU's memory: images/s, waiting for data."""

from collections.abc import Iterator

from common import Options, compared, experiment, noise, peak_gigabytes, release
from record import Row

from steadyspike.bench.training_run import waiting_for
from steadyspike.train.determinism import make_deterministic

TARGET_SPEED, TARGET_SHARE = 14_000, 3  # images/s in bfloat16 on an H100 or H200; percent
BATCHES = 300


def measure(options: Options) -> Iterator[Row]:
    make_deterministic()
    dataset = noise(160, 16, 12) if options.rehearse else noise(50_000, 10_000, 32)
    for precision in ("bfloat16",) if options.rehearse else ("bfloat16", "tf32"):
        training = {"precision": precision, "cuda_graph": not options.rehearse, "epochs": 1}
        release()
        one = experiment(options, training=training)
        found = waiting_for(dataset, one, most=6 if options.rehearse else BATCHES)
        speed, share = found["batch"] / found["seconds"], 100 * found["share"]
        data = {**found, "images_per_second": speed, "peak_gigabytes": peak_gigabytes()}
        how = f"{precision} K {one.training.chunk}"
        yield Row(
            f"training loop, {how}",
            f"{speed:,.0f} images/s, {1e3 * found['seconds']:.2f} ms a batch, over "
            f"{found['batches']} batches, peak {peak_gigabytes():.2f} GB",
            target=compared(speed, "at least", TARGET_SPEED) if precision == "bfloat16" else "",
            data=data,
            configuration=one.model_dump(mode="json"),
        )
        yield Row(
            f"waiting for data, {how}",
            f"{share:.2f} % of the time",
            target=compared(share, "at most", TARGET_SHARE, " %"),
        )
