"""The leaky integrate-and-fire neuron (Eq. 2-4) and the online threshold stabilizer (Eq. 16)."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from steadyspike.snn.sequence import StepModule
from steadyspike.snn.stable_sqrt import stable_sqrt
from steadyspike.snn.surrogate import spike

RUNNING_WEIGHT = 0.1  # of the newest batch in the running threshold, as in the norms


class LIF(StepModule):
    """Leaky integrate-and-fire neurons: currents (K, N, ...) to spikes (K, N, ...), 0 or 1.

    ::

        u[t] = (1 - 1/τ) u[t-½] + I[t]        charge   (Eq. 2)
        s[t] = Θ(u[t] - θ[t])                 fire     (Eq. 3)
        u[t+½] = u[t] - s[t] θ[t]             reset    (released code), or to zero (Eq. 4)

    After a call ``membrane`` (N, ...) is u after the last reset and ``threshold`` the θ of the
    last step.

    Args:
        tau: τ, the membrane's time constant in steps, at least 1.
        v_threshold: θ[1], and every θ[t] without the stabilizer.
        reset: ``"subtract"`` takes θ off a neuron that fired, ``"zero"`` sets it to 0.
        stabilize_threshold: OTS, θ[t] = mean u[t] + q std u[t] with q from the first step, over
            all neurons of the layer and the whole batch (Eq. 16). A layer whose u does not vary
            (std 0) keeps θ[1].
        surrogate_slope: k of the surrogate derivative.
        dropout: probability that a neuron's spikes are dropped, the same neurons at every step
            of a presentation; the others are scaled by 1 / (1 - dropout). Training mode only.
        inference_threshold: in evaluation mode ``"live"`` computes θ from the batch at hand,
            ``"fixed"`` takes the running value of each step learned in training (Appendix E).
        online: no gradient crosses steps (Eq. 6-7). False is BPTT: the gradient flows through u
            over time, not through the reset or θ.

    Raises:
        ValueError: an argument is out of its range.
    """

    running_threshold: Tensor

    def __init__(
        self,
        tau: float = 2.0,
        v_threshold: float = 1.0,
        reset: Literal["subtract", "zero"] = "subtract",
        stabilize_threshold: bool = False,
        surrogate_slope: float = 4.0,
        dropout: float = 0.0,
        inference_threshold: Literal["live", "fixed"] = "live",
        *,
        online: bool = True,
    ) -> None:
        super().__init__()
        if not tau >= 1:
            raise ValueError(f"tau must be at least 1 step, not {tau}")
        if reset not in ("subtract", "zero"):
            raise ValueError(f"reset must be 'subtract' or 'zero', not {reset!r}")
        if inference_threshold not in ("live", "fixed"):
            raise ValueError(
                f"inference_threshold must be 'live' or 'fixed', not {inference_threshold!r}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {dropout}")
        self.leak = 1 - 1 / tau
        self.v_threshold = float(v_threshold)
        self.reset = reset
        self.stabilize_threshold = stabilize_threshold
        self.surrogate_slope = float(surrogate_slope)
        self.dropout = float(dropout)
        self.inference_threshold = inference_threshold
        self.online = online
        #: called with u[t] (N, ...) before the fire, the step t (from 0) and θ[t], to look inside
        self.observer: Callable[[Tensor, int, Tensor], None] | None = None
        #: a bool scalar that becomes true once a neuron has fired in training, for who asks
        self.fired: Tensor | None = None
        if stabilize_threshold:
            # (T,) once a batch was seen: the number of steps is the caller's, not the layer's.
            self.register_buffer("running_threshold", torch.empty(0))

        self._begin()

    def extra_repr(self) -> str:
        shown = ("leak", "v_threshold", "reset", "stabilize_threshold", "dropout", "online")
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)

    def _begin(self) -> None:
        self._membrane: Tensor | None = None  # after the last reset; None with `_charged`
        self._charged: tuple[Tensor, Tensor] | None = None  # before it, and its threshold
        self._theta: Tensor | None = None  # of the last step
        self._thetas: list[Tensor] = []  # of every step so far, where they can be learned from
        self._quantile: Tensor | None = None  # q of Eq. 16
        self._dead: Tensor | None = None  # whether u did not vary at the first step
        self._kept: Tensor | None = None  # dropout's mask

    def _end(self) -> None:
        if self._membrane is not None:
            self._membrane = self._membrane.detach()  # lets go of BPTT's graph

    @property
    def membrane(self) -> Tensor | None:
        """u after the last reset, (N, ...); None before the first step."""
        if self._charged is None:
            return self._membrane
        u, threshold = self._charged
        return self._after_reset(u, u - threshold)

    @membrane.setter
    def membrane(self, u: Tensor) -> None:
        self._membrane, self._charged = u, None

    @property
    def charged(self) -> tuple[Tensor | None, Tensor | None]:
        """u before the last reset, (N, ...), and its θ; both None before the first step.

        Where the reset has been done already, a θ that no neuron reaches.
        """
        if self._membrane is not None:
            return self._membrane, self._membrane.new_full((), math.inf)
        return (None, None) if self._charged is None else self._charged

    @charged.setter
    def charged(self, charged: tuple[Tensor, Tensor]) -> None:
        self._membrane, self._charged = None, charged

    @property
    def threshold(self) -> Tensor:
        """θ of the last step, a scalar."""
        return torch.tensor(self.v_threshold) if self._theta is None else self._theta

    def advance(self, currents: Tensor) -> int:
        """Count the K steps of ``currents`` as presented; how many came before them."""
        return self._advance(currents)

    def forward(self, currents: Tensor) -> Tensor:
        """Currents (K, N, ...) of the next K steps to their spikes (K, N, ...)."""
        first = self.advance(currents)
        if self.online:
            with torch.no_grad():
                excess = torch.empty_like(currents)
                for k, current in enumerate(currents.unbind()):
                    u = self._charge(current)
                    torch.sub(u, self.threshold_of(u, first + k), out=excess[k])
                    self.membrane = self._after_reset(u, excess[k])
            spikes = spike(currents, excess, self.surrogate_slope)
        else:
            steps = []
            for k, current in enumerate(currents.unbind()):
                u = self._charge(current)
                over = u - self.threshold_of(u.detach(), first + k)
                self.membrane = self._after_reset(u, over)
                steps.append(spike(over, over.detach(), self.surrogate_slope))
            spikes = torch.stack(steps)
        return self.dropped(spikes)

    def _charge(self, current: Tensor) -> Tensor:
        # Eq. 2; the first step starts from u = 0
        membrane = self.membrane
        return current if membrane is None else torch.add(current, membrane, alpha=self.leak)

    def _after_reset(self, u: Tensor, excess: Tensor) -> Tensor:
        # Eq. 4, or its soft form u - θ; no gradient through which neurons fired
        fired = excess.detach() >= 0
        return u.masked_fill(fired, 0) if self.reset == "zero" else torch.where(fired, excess, u)

    @property
    def live_threshold(self) -> bool:
        """Whether θ is computed from the batch at hand."""
        fixed = self.inference_threshold == "fixed" and not self.training
        return self.stabilize_threshold and not fixed

    def threshold_of(self, u: Tensor, step: int, moments: Tensor | None = None) -> Tensor:
        """θ[t] of step t, counted from 0, a scalar; its membranes before the reset are ``u``.

        ``moments`` (2,) are their mean and their sum of squared deviations from it, where known.
        """
        if self.live_threshold:
            mean, squares = _mean_squares(u) if moments is None else moments.unbind()
            self._theta = self._stabilized_threshold(*self._mean_std(mean, squares, u))
            self._thetas.append(self._theta)
        elif self.stabilize_threshold:
            self._theta = self._learned_threshold(step)
        elif self._theta is None:
            self._theta = u.new_full((), self.v_threshold)
        if self.observer is not None:
            self.observer(u, step, self._theta)
        return self._theta

    def _mean_std(self, mean: Tensor, squares: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unbiased standard deviation over the layer and the whole batch."""
        count = u.numel()
        if self._shard is not None:
            mean, var = self._shard.combine(mean, squares / max(count, 1))
            count = self._shard.total * math.prod(u.shape[1:])
            squares = var * count
        std = stable_sqrt(squares / max(count - 1, 1))
        # Equal numbers differ from their rounded mean by a few units in the last place: no spread.
        return mean, std.masked_fill(std <= 32 * torch.finfo(std.dtype).eps * mean.abs(), 0)

    def _stabilized_threshold(self, mean: Tensor, std: Tensor) -> Tensor:
        # Eq. 16. Tensors throughout: nothing here waits for the device.
        if self._quantile is None or self._dead is None:
            self._quantile, self._dead = (self.v_threshold - mean) / std, std == 0
            return torch.full_like(mean, self.v_threshold)
        return torch.where(self._dead | (std == 0), self.v_threshold, mean + self._quantile * std)

    def _learned_threshold(self, step: int) -> Tensor:
        learned: Tensor = self.running_threshold
        if len(learned) == 0:
            raise RuntimeError(
                "inference_threshold='fixed' needs thresholds learned in training; these weights "
                "hold none"
            )
        return learned[min(step, len(learned) - 1)]

    def _fold(self) -> None:
        if not self.stabilize_threshold:
            return
        latest = torch.stack(self._thetas)
        if len(self.running_threshold) == len(latest):
            self.running_threshold.lerp_(latest.to(self.running_threshold), RUNNING_WEIGHT)
        else:  # the first batch, or another number of steps than before
            self.running_threshold = latest.to(self.running_threshold)

    def dropped(self, spikes: Tensor) -> Tensor:
        """Spikes (K, N, ...) less those that dropout takes, the others scaled."""
        if self.fired is not None and self.training:
            self.fired.logical_or_(spikes.detach().any())
        if not (self.dropout and self.training):
            return spikes
        if self._kept is None:
            self._kept = self._draw_kept(spikes[0], 1 - self.dropout)
        return spikes * self._kept

    def _draw_kept(self, spikes: Tensor, keep: float) -> Tensor:
        if self._shard is None:
            return torch.empty_like(spikes).bernoulli_(keep).div_(keep)
        # Drawn for the whole batch on every process, which then differ in nothing.
        kept = spikes.new_empty((self._shard.total, *spikes.shape[1:]))
        if spikes.dim() == 4 and spikes.is_contiguous(memory_format=torch.channels_last):
            kept = kept.contiguous(memory_format=torch.channels_last)
        return self._shard.of_whole(kept.bernoulli_(keep).div_(keep))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        learned = state_dict.get(prefix + "running_threshold")
        if self.stabilize_threshold and isinstance(learned, Tensor):
            self.running_threshold = self.running_threshold.new_empty(learned.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _mean_squares(u: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations from it over all of ``u``, at least in float32."""
    u = u.to(torch.promote_types(u.dtype, torch.float32))
    mean = u.mean()
    # Two passes over the values: exact for any mean, and faster than torch.std_mean on a CPU.
    return mean, (u - mean).square_().sum()
