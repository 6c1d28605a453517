"""The leaky integrate-and-fire neuron (Eq. 2-4) and the online threshold stabilizer (Eq. 16)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.kernels import reference
from steadyspike.kernels.stabilizer import Stabilizer
from steadyspike.snn.gradient import with_gradient
from steadyspike.snn.norm import StepNorm
from steadyspike.snn.rule import Rule, Traced
from steadyspike.snn.sequence import StepModule
from steadyspike.snn.surrogate import spike

InferenceThreshold = Literal["live", "fixed", "layer"]
RUNNING_WEIGHT = 0.1  # of the newest batch in the running threshold, as in the norms


@dataclass
class NeuronState:
    """What a layer of neurons carries from step to step of a presentation."""

    u: Tensor | None = None  # (N, ...) before the last reset; for BPTT after it
    threshold: Tensor | None = None  # θ of the last step, a scalar
    thresholds: list[Tensor] = field(default_factory=list)  # of the steps of each call, (K,)
    first: Tensor | None = None  # (2,) q of Eq. 16 and std u of the first step
    dropout: Tensor | None = None  # the mask
    call: tuple[Tensor, Tensor] | None = None  # u (K, N, ...) and θ (K,) of the last call


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
            ``"fixed"`` takes the running value of each step learned in training (Appendix E),
            ``"layer"`` their mean, one θ for all steps.
        online: no gradient crosses steps (Eq. 6-7). False is BPTT: the gradient flows through u
            over time, not through the reset or θ.
        rule: in training mode the spikes are returned with the trace that it keeps
            (`steadyspike.snn.rule`). Online training only.
        spike_scale: what a spike is, in place of 1, for the layers behind.

    Raises:
        ValueError: an argument is out of its range, or there is a rule for BPTT.
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
        inference_threshold: InferenceThreshold = "live",
        *,
        online: bool = True,
        rule: Rule | None = None,
        spike_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if rule is not None and not online:
            raise ValueError(f"online must be true with the rule {type(rule).__name__}")
        if not tau >= 1:
            raise ValueError(f"tau must be at least 1 step, not {tau}")
        for name, value in (("v_threshold", v_threshold), ("surrogate_slope", surrogate_slope)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if reset not in ("subtract", "zero"):
            raise ValueError(f"reset must be 'subtract' or 'zero', not {reset!r}")
        if inference_threshold not in get_args(InferenceThreshold):
            raise ValueError(
                "inference_threshold must be 'live', 'fixed' or 'layer', not "
                f"{inference_threshold!r}"
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
        self.rule = rule
        self.spike_scale = spike_scale
        #: called with u[t] (N, ...) before the reset, the step t (from 0) and θ[t]
        self.observer: Callable[[Tensor, int, Tensor], None] | None = None
        #: if given, a bool scalar that becomes true once a neuron has fired in training
        self.fired: Tensor | None = None
        if stabilize_threshold:
            # (T,) once a batch was seen: the number of steps is the caller's, not the layer's.
            self.register_buffer("running_threshold", torch.empty(0))

        self._begin()

    def extra_repr(self) -> str:
        shown = ("leak", "v_threshold", "reset", "stabilize_threshold", "dropout", "online")
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)

    def _begin(self) -> None:
        self.state = NeuronState()

    def _end(self) -> None:
        if self.state.u is not None:
            self.state.u = self.state.u.detach()  # lets go of BPTT's graph

    @property
    def membrane(self) -> Tensor | None:
        """u after the last reset, (N, ...); None before the first step."""
        u, threshold = self.state.u, self.state.threshold
        if not self.online or u is None or threshold is None:
            return u
        return self._after_reset(u, u - threshold)

    def potential(self, k: int) -> Tensor:
        """u after the reset of step ``k`` of the last call, (N, ...); for a rule that reads it."""
        if self.state.call is None or self.state.u is None:
            raise RuntimeError("a rule that reads potentials must have reads_potentials = True")
        u, threshold = (each[k] for each in self.state.call)
        u = u.to(threshold.dtype)
        return self._after_reset(u, u - threshold).view_as(self.state.u)

    @property
    def threshold(self) -> Tensor:
        """θ of the last step, a scalar."""
        if self.state.threshold is None:
            return torch.tensor(self.v_threshold)
        return self.state.threshold

    def forward(
        self,
        currents: Tensor,
        norm: nn.Module | None = None,
        steps: int | None = None,
        offset: Tensor | None = None,
    ) -> Tensor | Traced:
        """Currents of the next K steps to their spikes (K, N, ...), with their trace by a `rule`.

        Args:
            currents: (K, N, ...), or (1, N, ...) if all ``steps`` have the same.
            norm: normalizes the currents (K, N, C, ...) first. ``neuron(currents, norm)`` is
                ``neuron(norm(currents))`` to rounding, in fewer passes over memory.
            steps: K, where it is not the length of ``currents``.
            offset: (C,) to be added to the currents, such as a convolution's bias; with a ``norm``
                of this package, which takes it in without a pass over them.
        """
        steps = steps or len(currents)
        if norm is not None and not (self.online and isinstance(norm, StepNorm)):
            every = currents.expand(steps, *currents.shape[1:])
            currents, norm = norm(every) if offset is None else norm(every, offset), None
        spikes = (
            self._forward_online(currents, norm, steps, offset)
            if self.online
            else self._forward_through_time(currents.expand(steps, *currents.shape[1:]))
        )
        if self.fired is not None and self.training:
            self.fired.logical_or_(spikes.detach().any())
        spikes = self._dropped(spikes)
        if self.spike_scale != 1:
            spikes = spikes * self.spike_scale
        if self.rule is None or not self.training:
            return spikes
        traced: Traced = self.rule(self, spikes)
        return traced

    def _forward_online(
        self, currents: Tensor, norm: StepNorm | None, steps: int, offset: Tensor | None
    ) -> Tensor:
        """The time loop; no gradient crosses steps, so all of it is attached at the end."""
        if currents.dim() == 2:  # (K, N) are one channel to the kernels
            spikes = self._forward_online(currents.unsqueeze(-1), norm, steps, offset).squeeze(-1)
            self.state.u = None if self.state.u is None else self.state.u.squeeze(-1)
            return spikes
        backend = kernels.backend(currents)
        normalization = None
        scales: Sequence[Tensor | None] = [None] * steps
        shifts: Sequence[Tensor | None] = [None] * steps
        if norm is not None:
            normalization = norm.normalization(currents, steps, offset)
            scales = normalization.scales.scale.unbind()
            shifts = normalization.scales.shift.unbind()
        first = self._advance(steps)
        with torch.no_grad():
            types = currents.dtype, backend.membrane_type(currents.dtype)
            spikes, u = (_steps_like(currents, steps, each) for each in types)
            known = None if self.stabilize_threshold else self.v_threshold
            thresholds = self._new_thresholds(steps, first, u)
            for k, threshold in enumerate(thresholds.unbind()):
                before = self.state.u
                stabilizer = self._stabilizer(threshold)
                statistics = backend.charge(
                    currents[k if len(currents) == steps else 0],
                    scales[k],
                    shifts[k],
                    None if before is None else before.view_as(u[k]),
                    self.state.threshold,
                    leak=self.leak,
                    zero_reset=self.reset == "zero",
                    out=u[k],
                    statistics=stabilizer is not None and self._shard is not None,
                    stabilizer=stabilizer if self._shard is None else None,
                    spikes=None if known is None else spikes[k],
                    fire_at=known,
                    # θ depends on u of the whole layer: the next step's charge, which reads it
                    # anyway, fires.
                    last_spikes=spikes[k - 1] if known is None and k > 0 else None,
                )
                if stabilizer is not None and statistics is not None:
                    self._stabilize(stabilizer, statistics, u[k])
                self.state.u = u[k]
                self._note_step(u[k], first + k, threshold)
            if known is None:
                backend.fire(u[-1], thresholds[-1], spikes[-1])
            reads = self.rule is not None and self.rule.reads_potentials
            self.state.call = (u, thresholds) if reads else None
        return with_gradient(
            spikes,
            currents,
            backend,
            normalization=normalization,
            neurons=(u, thresholds, self.surrogate_slope),
        )

    def _forward_through_time(self, currents: Tensor) -> Tensor:
        """BPTT: autograd follows u over time, not the reset nor θ."""
        first = self._advance(len(currents))
        thresholds = self._new_thresholds(len(currents), first, currents)
        steps = []
        for k, (current, threshold) in enumerate(
            zip(currents.unbind(), thresholds.unbind(), strict=True)
        ):
            before = self.state.u
            u = current if before is None else torch.add(current, before, alpha=self.leak)
            stabilizer = self._stabilizer(threshold)
            if stabilizer is not None:
                self._stabilize(stabilizer, reference.mean_squares(u.detach()), u)
            self._note_step(u.detach(), first + k, threshold)
            excess = u - threshold
            self.state.u = self._after_reset(u, excess)
            steps.append(spike(excess, self.surrogate_slope))
        return torch.stack(steps)

    def _after_reset(self, u: Tensor, excess: Tensor) -> Tensor:
        # Eq. 4, or its soft form u - θ; no gradient through which neurons fired
        fired = excess.detach() >= 0
        return u.masked_fill(fired, 0) if self.reset == "zero" else torch.where(fired, excess, u)

    @property
    def live_threshold(self) -> bool:
        """Whether θ is computed from the batch at hand."""
        learned = self.inference_threshold != "live" and not self.training
        return self.stabilize_threshold and not learned

    def _new_thresholds(self, steps: int, first: int, u: Tensor) -> Tensor:
        """θ of the next K steps, (K,), as known before they are charged."""
        wide = torch.promote_types(u.dtype, torch.float32)
        thresholds = u.new_full((steps,), self.v_threshold, dtype=wide)
        if self.live_threshold:
            self.state.thresholds.append(thresholds)
        elif self.stabilize_threshold:
            for k in range(steps):
                thresholds[k] = self._learned_threshold(first + k)
        return thresholds

    def _stabilizer(self, threshold: Tensor) -> Stabilizer | None:
        """What computes θ of the next step, into ``threshold``; None if θ does not depend on u."""
        if not self.live_threshold:
            return None
        at_first = self.state.first is None
        if self.state.first is None:
            self.state.first = threshold.new_empty(2)
        return Stabilizer(self.v_threshold, self.state.first, at_first, threshold)

    def _stabilize(self, stabilizer: Stabilizer, statistics: Tensor, u: Tensor) -> None:
        """Write θ by the ``statistics`` of ``u``, the membranes that this process has."""
        count = u.numel()
        if self._shard is not None:
            mean, squares = statistics.unbind()
            mean, var = self._shard.combine(mean, squares / max(count, 1))
            count = self._shard.total * math.prod(u.shape[1:])
            statistics = torch.stack([mean, var * count])
        stabilizer.write(statistics, count)

    def _note_step(self, u: Tensor, step: int, threshold: Tensor) -> None:
        self.state.threshold = threshold
        if self.observer is not None:
            self.observer(u, step, threshold)

    def _learned_threshold(self, step: int) -> Tensor:
        learned: Tensor = self.running_threshold
        if len(learned) == 0:
            raise RuntimeError(
                f"inference_threshold={self.inference_threshold!r} needs thresholds learned in "
                "training; these weights hold none"
            )
        if self.inference_threshold == "layer":
            return learned.mean()
        return learned[min(step, len(learned) - 1)]

    def _fold(self) -> None:
        if not self.stabilize_threshold:
            return
        latest = torch.cat(self.state.thresholds)
        if len(self.running_threshold) == len(latest):
            self.running_threshold.lerp_(latest.to(self.running_threshold), RUNNING_WEIGHT)
        else:  # the first batch, or another number of steps than before
            self.running_threshold = latest.to(self.running_threshold)

    def _dropped(self, spikes: Tensor) -> Tensor:
        """Spikes (K, N, ...) less those that dropout takes, the others scaled."""
        if not (self.dropout and self.training):
            return spikes
        if self.state.dropout is None:
            self.state.dropout = self._draw_dropout(spikes[0], 1 - self.dropout)
        return spikes * self.state.dropout

    def _draw_dropout(self, spikes: Tensor, keep: float) -> Tensor:
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


def _steps_like(x: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Uninitialized (K, N, C, ...), each step laid out in memory as those of ``x``."""
    if len(x) == steps:
        return torch.empty_like(x, dtype=dtype)
    last = x.dim() == 5 and x[0].is_contiguous(memory_format=torch.channels_last)
    flat = torch.empty(
        (steps * x.shape[1], *x.shape[2:]),
        dtype=dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    every: Tensor = flat.unflatten(0, (steps, x.shape[1]))
    return every
