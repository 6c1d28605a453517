"""The forward and backward passes of a batch, from samples to gradients."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from steadyspike.data import Dataset
from steadyspike.data.collate import augmentation_for, holds_clips, training_clip
from steadyspike.data.counter_rng import derive_seed, splitmix
from steadyspike.data.event_augmentation import kept_steps
from steadyspike.snn.loss import tet_loss
from steadyspike.snn.sequence import sequence
from steadyspike.snn.shard import Shard
from steadyspike.train.config import Experiment
from steadyspike.train.distributed import Ranks


class Passes:
    """Computes the gradients of a batch. Nothing here waits for the device.

    Args:
        experiment: one of a single seed.
        model: on the experiment's device.
        dataset: the samples' data set.
        ranks: this process among those that train together.
    """

    def __init__(
        self, experiment: Experiment, model: nn.Module, dataset: Dataset, ranks: Ranks
    ) -> None:
        self.experiment, self.model, self.dataset, self.ranks = experiment, model, dataset, ranks
        self.augmentation = augmentation_for(dataset, experiment.dataset.augmentation)

    def draw(self, epoch: int, order: Tensor, first: int) -> list[list[Tensor]]:
        """Random choices for the batches of an epoch from batch ``first`` on, on the device.

        For each batch of the sample indices ``order`` a list: the choices of each sample (N, D),
        and for clips of more than T steps the indices of those that the batch keeps (T,).
        """
        if len(order) == 0:
            return []
        seed, options = self.experiment.seed, self.experiment.training
        shape = self.dataset.train.shape
        choices = self.augmentation.draw(seed, epoch, order.to(self.experiment.device), shape)
        parts = choices.split(options.batch)
        if not holds_clips(self.dataset) or options.steps == shape[0]:
            return [[part] for part in parts]
        kept = [
            kept_steps(seed, epoch, first + number, shape[0], options.steps)
            for number in range(len(parts))
        ]
        every = torch.stack(kept).to(choices.device)
        return [list(both) for both in zip(parts, every, strict=True)]

    def draw_steps(self, epoch: int, batch: int) -> set[int] | None:
        """The time steps that a batch is learned from, by a rule that draws them; None for all."""
        options = self.experiment.training
        if options.backward_steps is None:
            return None
        key = derive_seed(self.experiment.seed, "learned steps", epoch, batch)
        order = splitmix(key, torch.arange(1, options.steps + 1)).argsort()
        return set(order[: options.backward_steps].tolist())

    def clip(self, samples: Tensor, choices: Tensor, kept: Tensor | None = None) -> Tensor:
        """What the network is shown of samples (N, ...): (T, N, C, H, W)."""
        options = self.experiment.training
        return training_clip(
            samples.to(choices.device, non_blocking=True),
            choices,
            self.dataset,
            self.augmentation,
            steps=options.steps,
            kept=kept,
            dtype=torch.float64 if options.precision == "float64" else torch.float32,
        )

    def __call__(
        self,
        samples: Tensor,
        labels: Tensor,
        choices: Tensor,
        kept: Tensor | None = None,
        *,
        shard: Shard | None = None,
        learned: Collection[int] | None = None,
        update: Callable[[], object] | None = None,
    ) -> Tensor:
        """Leaves the gradients of a batch in the model's parameters.

        Args:
            samples, labels: (N, ...) and (N,), on any device.
            choices, kept: of this batch, from `draw`.
            shard: which rows of the batch these are, with several processes.
            learned: the time steps, from 0, whose loss has a gradient; all unless given.
            update: steps the optimizer; called after every chunk, whose gradients are then
                cleared. Without it the gradients of the whole batch are left to the caller.

        Returns:
            the loss summed over the whole batch, the number of correct answers, and the norm of
            the gradient; with ``update``, that of all chunks' gradients together. float64 (3,).
        """
        labels = labels.to(choices.device, non_blocking=True)
        norms: list[Tensor] = []

        def after_chunk() -> None:
            norms.append(self._sum_gradients())
            if update is not None:
                update()
            self.model.zero_grad(set_to_none=True)

        scores = self._forward_backward(
            self.clip(samples, choices, kept),
            labels,
            shard,
            range(self.experiment.training.steps) if learned is None else learned,
            None if update is None else after_chunk,
        )
        if update is None:
            norms.append(self._sum_gradients())
        self.ranks.sum(scores)
        loss, correct = scores.unbind()
        norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
        size = len(labels) if shard is None else shard.total
        return torch.stack([loss * size, correct, norm.to(loss)])

    def _sum_gradients(self) -> Tensor:
        """Sum the gradients over all processes; returns their norm."""
        self.ranks.sum_gradients(self.model.parameters())
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _forward_backward(
        self,
        clip: Tensor,
        labels: Tensor,
        shard: Shard | None,
        learned: Collection[int],
        after_chunk: Callable[[], None] | None,
    ) -> Tensor:
        """Gradients of these rows; returns their loss and number of correct answers (2,)."""
        options = self.experiment.training
        # The loss is the mean over the whole batch; this process contributes its share.
        share = 1.0 if shard is None else len(labels) / shard.total
        scores = torch.zeros(2, dtype=torch.float64, device=clip.device)
        votes: Tensor | float = 0.0
        self.model.zero_grad(set_to_none=True)
        # A current for all steps would be that of the first step's weights.
        still = not holds_clips(self.dataset) and after_chunk is None
        bfloat16 = options.precision == "bfloat16"

        def loss_of(logits: Tensor) -> Tensor:
            if share == 0:  # no rows here, but the exchanges need this process too
                return logits.sum()
            return share * tet_loss(
                logits, labels, steps=options.steps, mse_weight=options.mse_weight
            )

        first = 0
        with sequence(self.model, steps=options.steps, shard=shard, still=still):
            for frames in clip.split(options.chunk):  # (K, N, C, H, W)
                at = [k for k in range(len(frames)) if first + k in learned]
                first += len(frames)
                with (
                    torch.set_grad_enabled(bool(at)),
                    torch.autocast(clip.device.type, torch.bfloat16, enabled=bfloat16),
                ):
                    logits = self.model(frames)  # (K, N, classes)
                    part = loss = loss_of(logits)
                    if 0 < len(at) < len(frames):
                        # Not `logits[at]`: the list would be copied to a GPU and waited for.
                        part = loss_of(torch.stack([logits[k] for k in at]))
                if at:
                    part.backward()
                    if after_chunk is not None:
                        after_chunk()
                scores[0] += loss.detach()
                votes = votes + logits.detach().float().sum(0)
        assert isinstance(votes, Tensor)
        scores[1] = (votes.argmax(1) == labels).sum()
        return scores
