"""The state of a run, and how a batch and an epoch are trained."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steadyspike.data import Dataset
from steadyspike.data.counter_rng import derive_seed
from steadyspike.data.loading import batches, epoch_order
from steadyspike.errors import UserError
from steadyspike.models.state import load_state, misfits
from steadyspike.snn.norm import OSR
from steadyspike.snn.shard import Shard
from steadyspike.train.accuracy import Presentation, evaluate, present_batch
from steadyspike.train.checkpoint import StaleCheckpoint
from steadyspike.train.config import Experiment
from steadyspike.train.digest import state_digest
from steadyspike.train.distributed import ALONE, Ranks
from steadyspike.train.graph import CudaRecorder, Recorder, Replayed
from steadyspike.train.health import SilenceWatch, exploding_layers
from steadyspike.train.history import EpochRow, best_row
from steadyspike.train.network import build_model
from steadyspike.train.passes import Passes

#: After these batches of a run, counted from its start, the digest of every tensor is recorded.
DIGEST_BATCHES = (1, 2, 5, 10)


class Diverged(UserError):
    """A loss, a gradient or a weight is not finite."""

    exit_status = 1


class Trainer:
    """One run of an experiment: model, optimizer, and how far training has come.

    `state` and `load_state` carry everything that the rest of the run depends on. Random choices
    derive from (seed, epoch, batch, index), so no generator is part of the state.

    With several processes each trains its rows of every batch; weights, losses and state are the
    same in all of them after every batch.
    """

    def __init__(self, experiment: Experiment, dataset: Dataset, ranks: Ranks = ALONE) -> None:
        self.experiment = experiment
        self.ranks = ranks
        self.model = build_model(experiment, dataset)
        self.content_sha256 = dataset.content_sha256()
        self.dataset = dataset.to(next(self.model.parameters()).device)
        for tensor in self.model.state_dict().values():
            ranks.broadcast(tensor, 0)  # initial weights may round differently on another machine
        options = experiment.training
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=True,  # one call over all parameters
        )
        self.batches = math.ceil(len(dataset.train) / options.batch)
        self.epoch, self.batch = 0, 0  # finished epochs, and finished batches of the current one
        self.between_batches = True  # False while `state` is half updated, so none to save
        self.rows: list[EpochRow] = []
        self.best: dict[str, Tensor] = {}  # the weights of the best epoch so far
        self.digests: dict[str, dict[str, str]] = {}
        self.silence = SilenceWatch(self.model)
        self.passes = Passes(experiment, self.model, self.dataset, ranks)
        recordable = options.cuda_graph and experiment.device == "cuda" and ranks.alone
        # A recording would repeat one choice of steps, and one learning rate.
        self.recordable_passes = not (options.online_update or options.backward_steps)
        self.recorder: Recorder | None = CudaRecorder() if recordable else None
        self._begin_epoch()
        self._forget_recordings()

    @property
    def finished(self) -> bool:
        return self.epoch == self.experiment.training.epochs

    @property
    def batches_done(self) -> int:
        """Finished batches, counted from the start of the run."""
        return self.epoch * self.batches + self.batch

    def state(self) -> dict[str, Any]:
        """The state of the run, in tensors and plain values."""
        return {
            "dataset": self.content_sha256,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "scores": self.scores,
            "fired": self.silence.fired,
            "rows": [row.model_dump() for row in self.rows],
            "best": self.best,
            "digests": self.digests,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave.

        Raises:
            StaleCheckpoint: it is of training on other images.
            Exception: it does not fit this model.
        """
        if state.get("dataset", self.content_sha256) != self.content_sha256:
            raise StaleCheckpoint(
                f"the images of {self.dataset.name} are not those that training began with"
            )
        load_state(self.model, state["model"])
        if state["best"] and (wrong := misfits(state["best"], self.model.state_dict())):
            raise ValueError(wrong[0])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.scores.copy_(state["scores"])
        self.checked = self.batch
        self.silence.begin_epoch(state["fired"])
        self.rows = [EpochRow.model_validate(row) for row in state["rows"]]
        self.best = state["best"]
        self.digests = state["digests"]
        self._forget_recordings()  # loading may have replaced tensors

    def _forget_recordings(self) -> None:
        """Drop the recordings of a CUDA graph, if any; the next batches are recorded anew."""
        how = Presentation.of(self.experiment)
        present = partial(present_batch, self.model, self.dataset, how)
        self.present: Callable[[Tensor], Tensor] = present
        #: The recorded passes, by whether `silence` watches the layers meanwhile.
        self.replayed: dict[bool, Replayed] | None = None
        if self.recorder is None:
            return
        device = self.scores.device
        self.present = Replayed(present, self.recorder, device)
        if self.recordable_passes:
            self.replayed = {
                watching: Replayed(self.passes, self.recorder, device, self.model.parameters())
                for watching in (True, False)
            }

    def _begin_epoch(self) -> None:
        # Summed loss, correct answers and gradient norm of every batch, (3, batches), stay on the
        # device until they are needed.
        device = self.experiment.device
        self.scores = torch.zeros(3, self.batches, dtype=torch.float64, device=device)
        self.losses, self.correct, self.gradients = self.scores.unbind()
        self.checked = 0  # batches whose loss and gradient are known to be finite
        self.silence.begin_epoch()

    def run_epoch(self) -> Iterator[int]:
        """Train the rest of the current epoch; yields the number of images of each batch."""
        experiment, options = self.experiment, self.experiment.training
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(options.learning_rate, self.epoch, options.epochs)
        order = epoch_order(experiment.seed, self.epoch, len(self.dataset.train))
        order = order[self.batch * options.batch :]
        sizes = [len(part) for part in order.split(options.batch)] if len(order) else []
        shards = [self.ranks.shard(size) for size in sizes]
        loaded = batches(
            self.dataset.train,
            order,
            options.batch,
            seed=experiment.seed,
            epoch=self.epoch,
            shards=shards,
        )
        drawn = self.passes.draw(self.epoch, order, self.batch)
        each = zip(sizes, shards, loaded, drawn, strict=True)
        for size, shard, (_, samples, labels), (choices, *kept) in each:
            self.between_batches = False
            rows = choices if shard is None else shard.of_whole(choices)
            inputs = [samples, labels, rows, *kept]
            self._train_batch(inputs, shard)
            self.batch += 1
            if self.batches_done in DIGEST_BATCHES:
                self.digests[str(self.batches_done)] = state_digest(self.model.state_dict())
            self.between_batches = True
            yield size

    def _train_batch(self, inputs: Sequence[Tensor], shard: Shard | None) -> None:
        """Learn from this process's rows of a batch, given as `Passes` takes it."""
        torch.manual_seed(derive_seed(self.experiment.seed, "batch", self.epoch, self.batch))
        online_update = self.experiment.training.online_update
        passes: Callable[..., Tensor] = partial(
            self.passes,
            shard=shard,
            learned=self.passes.draw_steps(self.epoch, self.batch),
            update=self.optimizer.step if online_update else None,
        )
        if self.replayed is not None:
            passes = self.replayed[self.silence.watching]
        self.scores[:, self.batch] = passes(*inputs)
        if not online_update:
            self.optimizer.step()
        self.silence.after_batch()

    def running_metrics(self) -> tuple[float, float]:
        """Mean loss per image and accuracy in percent of the current epoch; waits for the device.

        Raises:
            Diverged: a loss or a gradient was not finite; names epoch and batch.
        """
        unchecked = slice(self.checked, self.batch)
        for name, values in (("loss", self.losses), ("gradient", self.gradients)):
            finite = torch.isfinite(values[unchecked])
            if not finite.all():
                batch = self.checked + int((~finite).nonzero()[0]) + 1
                raise self._diverged(f"the {name} of epoch {self.epoch + 1}, batch {batch}")
        self.checked = self.batch
        images = min(self.batch * self.experiment.training.batch, len(self.dataset.train))
        return self.losses.sum().item() / images, 100 * self.correct.sum().item() / images

    def synchronize(self) -> None:
        """Combine what each process has seen of the current epoch; all processes must call it."""
        fired = self.silence.fired.to(torch.int64)
        self.ranks.sum(fired)
        self.silence.fired.copy_(fired > 0)

    def finish_epoch(self, after_test_batch: Callable[[], None] | None = None) -> EpochRow:
        """Evaluate, keep the best weights and begin the next epoch.

        ``after_test_batch`` is called after each test batch; if it raises, the state is unchanged.

        Raises:
            Diverged: a loss, a gradient, a running statistic or the test loss is not finite.
        """
        self.synchronize()
        loss, accuracy = self.running_metrics()
        how = Presentation.of(self.experiment)
        score = evaluate(self.model, self.dataset, how, self.ranks, after_test_batch, self.present)
        for name, buffer in self.model.named_buffers():
            if not torch.isfinite(buffer).all():
                raise self._diverged(f"{name} after epoch {self.epoch + 1}")
        if not math.isfinite(score.loss):  # the last batch's step may have lost the weights
            raise self._diverged(f"the test loss after epoch {self.epoch + 1}")
        fallbacks = sum(
            int(module.fallbacks) for module in self.model.modules() if isinstance(module, OSR)
        )
        self.between_batches = False
        row = EpochRow(
            epoch=self.epoch + 1,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_loss=loss,
            train_accuracy=accuracy,
            test_loss=score.loss,
            test_accuracy=score.accuracy,
            osr_fallbacks=fallbacks - sum(row.osr_fallbacks for row in self.rows),
            silent_layers=tuple(self.silence.silent_layers()),
            exploding_layers=tuple(exploding_layers(self.model)),
        )
        self.rows.append(row)
        if best_row(self.rows) is row:
            self.best = {
                name: tensor.detach().cpu().clone()
                for name, tensor in self.model.state_dict().items()
            }
        self.epoch, self.batch = self.epoch + 1, 0
        self._begin_epoch()
        self.between_batches = True
        return row

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"{self.experiment.name}: {what} is not finite: a lower training.learning_rate may help"
        )


def cosine(learning_rate: float, epoch: int, epochs: int) -> float:
    """Cosine annealing from ``learning_rate`` at epoch 0 to 0 after the last, constant within one.

    Rounded to 12 digits, so that the last bit of a library's cosine does not matter.
    """
    return float(f"{learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2:.12g}")
