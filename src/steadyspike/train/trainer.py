"""One run of an experiment: its state, its batches and its epochs."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steadyspike.data import Dataset
from steadyspike.data.collate import holds_clips, training_clip
from steadyspike.data.counter_rng import derive_seed
from steadyspike.data.loading import batches, epoch_order
from steadyspike.errors import UserError
from steadyspike.snn.loss import tet_loss
from steadyspike.snn.norm import OSR
from steadyspike.snn.sequence import sequence
from steadyspike.snn.shard import Shard
from steadyspike.train.accuracy import Presentation, evaluate
from steadyspike.train.config import Experiment
from steadyspike.train.digest import state_digest
from steadyspike.train.distributed import ALONE, Ranks
from steadyspike.train.graph import CudaRecorder, Present, Replayed
from steadyspike.train.health import SilenceWatch, exploding
from steadyspike.train.history import EpochRow, best_row
from steadyspike.train.network import build_model, check_recordable
from steadyspike.train.provenance import code_sha256, environment_sha256

#: After these batches of a run, counted from its start, the digest of every weight is kept.
DIGEST_BATCHES = (1, 2, 5, 10)


class Diverged(UserError):
    """The loss is no longer a number."""

    exit_status = 1


class Trainer:
    """One run of an experiment, from its first batch or from a checkpoint's.

    ``state`` and ``load_state`` carry everything that the rest of the run depends on: all random
    choices derive from (seed, epoch, batch, index), so no generator is part of it.

    Several processes train as one would: each takes its rows of every batch, and all hold the
    same weights, the same losses and the same state at every moment.
    """

    def __init__(self, experiment: Experiment, dataset: Dataset, ranks: Ranks = ALONE) -> None:
        self.experiment = experiment
        self.ranks = ranks
        self.model = build_model(experiment, dataset)
        self.dataset = dataset.to(next(self.model.parameters()).device)
        for tensor in self.model.state_dict().values():
            ranks.broadcast(tensor, 0)  # another machine may round its random numbers otherwise
        options = experiment.training
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=True,  # one call over all parameters
        )
        self.batches = math.ceil(len(dataset.train) / options.batch)
        self.epoch, self.batch = 0, 0  # finished epochs, and batches of the one in progress
        self.rows: list[EpochRow] = []
        self.best: dict[str, Tensor] = {}  # the weights of the best epoch so far
        self.digests: dict[str, dict[str, str]] = {}
        # Those that took part in the run, in order: a resumed run may have several.
        self.code = [code_sha256()]
        self.environment = [environment_sha256(experiment, ranks)]
        self.watch = SilenceWatch(self.model)
        self.replayed: Replayed | None = None
        if options.cuda_graph:
            check_recordable(experiment, self.model, ranks)
            self.replayed = Replayed(self._present, list(self.model.parameters()), CudaRecorder())
        self._begin_epoch()

    def state(self) -> dict[str, Any]:
        """All of the run so far, in tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "losses": self.losses,
            "correct": self.correct,
            "rows": [row.model_dump() for row in self.rows],
            "best": self.best,
            "digests": self.digests,
            "fired": self.watch.fired,
            "code": self.code,
            "environment": self.environment,
        }

    def progress(self, state: dict[str, Any]) -> int:
        """The batches behind what `state` gave; raises as `load_state`."""
        epoch, batch = state["epoch"], state["batch"]
        for count, most in ((epoch, self.experiment.training.epochs), (batch, self.batches)):
            if type(count) is not int or not 0 <= count <= most:
                raise ValueError(f"expected 0 to {most} epochs or batches, found {count!r}")
        return int(epoch * self.batches + batch)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave; anything else raises whatever it leads to."""
        self.progress(state)
        words = [*state["code"], *state["environment"]]
        for digests in state["digests"].values():
            words += digests.values()
        if not all(isinstance(word, str) for word in words):
            raise TypeError("expected code, environment and digests as text")
        if state["best"]:
            self.model.load_state_dict(state["best"])  # whether they are this network's
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.losses.copy_(state["losses"])
        self.correct.copy_(state["correct"])
        self.checked = self.batch
        self.rows = [EpochRow.model_validate(row) for row in state["rows"]]
        self.best = state["best"]
        self.digests = state["digests"]
        self.watch.begin(state["fired"])
        self.code = _and_then(state["code"], self.code)
        self.environment = _and_then(state["environment"], self.environment)

    @property
    def finished(self) -> bool:
        return self.epoch == self.experiment.training.epochs

    def _begin_epoch(self) -> None:
        device = self.experiment.device
        # Every batch's loss stays on the device until somebody looks.
        self.losses = torch.zeros(self.batches, dtype=torch.float64, device=device)
        self.gradients = torch.zeros_like(self.losses)  # the norm of each batch's
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.checked = 0  # batches whose loss and gradient are known to be finite
        self.watch.begin()

    def run_epoch(self) -> Any:
        """Train the rest of the epoch in progress; yields the images of each finished batch."""
        experiment, options = self.experiment, self.experiment.training
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(options.learning_rate, self.epoch, options.epochs)
        order = epoch_order(experiment.seed, self.epoch, len(self.dataset.train))
        rest = order[self.batch * options.batch :]
        shards = [
            self.ranks.shard(min(options.batch, len(rest) - first))
            for first in range(0, len(rest), options.batch)
        ]
        visits = batches(
            self.dataset.train,
            rest,
            options.batch,
            seed=experiment.seed,
            epoch=self.epoch,
            shards=shards,
        )
        for shard, (indices, images, labels) in zip(shards, visits, strict=True):
            self._train_batch(indices, images, labels, shard)
            self.batch += 1
            number = self.epoch * self.batches + self.batch
            if number in DIGEST_BATCHES:
                self.digests[str(number)] = state_digest(self.model.state_dict())
            yield len(labels) if shard is None else shard.total

    def _train_batch(
        self, indices: Tensor, images: Tensor, labels: Tensor, shard: Shard | None
    ) -> None:
        experiment, options = self.experiment, self.experiment.training
        device = torch.device(experiment.device)
        torch.manual_seed(derive_seed(experiment.seed, "batch", self.epoch, self.batch))
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        clip = training_clip(  # (T, N, C, H, W)
            images,
            indices,
            self.dataset,
            augmentation=experiment.dataset.augmentation,
            steps=options.steps,
            seed=experiment.seed,
            epoch=self.epoch,
            batch=self.batch,
            dtype=torch.float64 if options.precision == "float64" else torch.float32,
        )
        present: Present = partial(self._present, shard=shard)
        # While a layer may be silent, somebody looks at spikes, which no recording should do.
        if self.replayed is not None and not self.watch.looking:
            present = self.replayed
        scores = present(clip, labels)  # loss, correct
        self.ranks.sum_gradients(self.model.parameters())
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.gradients[self.batch] = torch.nn.utils.get_total_norm(gradients)
        self.optimizer.step()
        self.ranks.sum(scores)
        self.losses[self.batch] = scores[0] * (len(labels) if shard is None else shard.total)
        self.correct += scores[1].long()
        self.watch.after_batch()

    def _present(self, clip: Tensor, labels: Tensor, shard: Shard | None = None) -> Tensor:
        """Gradients of one batch, and its loss and correct answers; float64 (2,), on the device."""
        options = self.experiment.training
        low_precision = options.precision == "bfloat16"
        # The loss is the mean over the batch, and this process's part of it.
        part = 1.0 if shard is None else len(labels) / shard.total
        scores = torch.zeros(2, dtype=torch.float64, device=clip.device)
        votes: Tensor | float = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        still = not holds_clips(self.dataset)
        with sequence(self.model, steps=options.steps, shard=shard, still=still):
            for chunk in clip.split(options.chunk):  # (K, N, C, H, W)
                with torch.autocast(clip.device.type, torch.bfloat16, enabled=low_precision):
                    logits = self.model(chunk)
                    # A process without rows takes part in the exchanges all the same.
                    loss = (
                        logits.sum()
                        if part == 0
                        else part
                        * tet_loss(
                            logits, labels, steps=options.steps, mse_weight=options.mse_weight
                        )
                    )
                loss.backward()
                scores[0] += loss.detach()
                votes = votes + logits.detach().float().sum(0)
        assert isinstance(votes, Tensor)
        scores[1] = (votes.argmax(1) == labels).sum()
        return scores

    def numbers(self) -> tuple[float, float]:
        """Mean loss per image and accuracy in percent of the epoch so far; waits for the device.

        Raises:
            Diverged: a loss or a gradient was not finite; names epoch and batch.
        """
        unchecked = slice(self.checked, self.batch)
        for name, numbers in (("loss", self.losses), ("gradient", self.gradients)):
            finite = torch.isfinite(numbers[unchecked])
            if not finite.all():
                batch = self.checked + int((~finite).nonzero()[0]) + 1
                raise self._diverged(f"the {name} of epoch {self.epoch + 1}, batch {batch}")
        self.checked = self.batch
        images = min(self.batch * self.experiment.training.batch, len(self.dataset.train))
        return self.losses.sum().item() / images, 100 * self.correct.item() / images

    def agree(self) -> None:
        """What each process alone has seen of the epoch becomes known to all; an exchange."""
        seen = self.watch.fired.to(torch.int64)
        self.ranks.sum(seen)
        self.watch.fired.copy_(seen > 0)

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"{self.experiment.name}: {what} is not finite: a lower training.learning_rate may help"
        )

    def finish_epoch(self, between: Callable[[], None] | None = None) -> EpochRow:
        """Score the epoch, keep the best weights, begin the next; raises as `numbers`.

        ``between`` is called between the test batches; if it raises, nothing has changed.
        """
        loss, accuracy = self.numbers()
        how = Presentation.of(self.experiment)
        score = evaluate(self.model, self.dataset, how, self.ranks, between)
        for name, buffer in self.model.named_buffers():
            if not torch.isfinite(buffer).all():
                raise self._diverged(f"{name} after epoch {self.epoch + 1}")
        if not math.isfinite(score.loss):  # the last batch's step may have lost the weights
            raise self._diverged(f"the test loss after epoch {self.epoch + 1}")
        fallbacks = sum(
            int(module.fallbacks) for module in self.model.modules() if isinstance(module, OSR)
        )
        self.agree()
        silent = self.watch.silent()
        row = EpochRow(
            epoch=self.epoch + 1,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_loss=loss,
            train_accuracy=accuracy,
            test_loss=score.loss,
            test_accuracy=score.accuracy,
            osr_fallbacks=fallbacks - sum(row.osr_fallbacks for row in self.rows),
            silent_layers=tuple(silent),
            exploding_layers=tuple(exploding(self.model)),
        )
        self.rows.append(row)
        if best_row(self.rows) is row:
            self.best = {
                name: tensor.detach().cpu().clone()
                for name, tensor in self.model.state_dict().items()
            }
        self.epoch, self.batch = self.epoch + 1, 0
        self._begin_epoch()
        return row


def _and_then(before: list[str], now: list[str]) -> list[str]:
    """What took part in a run before it was resumed, and now; the same again is not a change."""
    return before if before[-1:] == now else [*before, *now]


def cosine(learning_rate: float, epoch: int, epochs: int) -> float:
    """Cosine annealing from ``learning_rate`` at epoch 0 to 0 after the last, constant within one.

    Rounded to 12 digits, so that the last bit of a library's cosine never matters.
    """
    return float(f"{learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2:.12g}")
