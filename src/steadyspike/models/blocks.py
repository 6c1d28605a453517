"""What the networks are built of: convolution, norm and neurons over a chunk of steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from steadyspike.snn.conv import Convolution, StillCurrent, convolve, linear
from steadyspike.snn.neuron import LIF, InferenceThreshold
from steadyspike.snn.norm import OSR, BatchNorm, LinearNorm, PerStepBatchNorm, StepNorm
from steadyspike.snn.norm_all_steps import TEBN, TdBN
from steadyspike.snn.norm_each_step import BNTT, TAB
from steadyspike.snn.rule import Rule, Traced, on_traces, spikes_of
from steadyspike.snn.rules import RULES
from steadyspike.snn.sequence import StepModule
from steadyspike.snn.standardization import (
    SPIKE_SCALE,
    StandardizedConvolution,
    StandardizedLinear,
)

NormName = Literal["osr", "per_step", "linear", "batch", "ws", "bntt", "tab", "tdbn", "tebn"]
Norm = StepNorm | BatchNorm | TEBN | nn.Identity
#: Norms that see all steps of a presentation at once.
ALL_STEPS = ("tdbn", "tebn")


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The options that every network takes as keyword arguments, and the layers they make.

    Args:
        norm: ``"osr"``, ``"per_step"``, ``"linear"``, or ``"batch"`` for the framework's own;
            ``"ws"`` (standardized weights and no norm), ``"bntt"``, ``"tab"``, and for BPTT
            ``"tdbn"`` and ``"tebn"``.
        stabilize_threshold: OTS in every LIF layer.
        online: no gradient across steps; ``norm="batch", online=False`` is BPTT.
        rule: how the weights' gradients are formed in online training, one of
            `steadyspike.snn.rules`.
        reset, dropout, inference_threshold, tau, v_threshold, surrogate_slope: of every
            :class:`~steadyspike.snn.neuron.LIF`.
        fallback_ratio: of every :class:`~steadyspike.snn.norm.OSR`.
        warm_up_statistics: of every norm that is a
            :class:`~steadyspike.snn.norm.StepNorm`. Not in the paper.
        steps: T of the training, for the norms with parameters of each step.

    Raises:
        TypeError: an option of another name.
        ValueError: from the methods, for a value that is none of these.
    """

    norm: NormName = "osr"
    stabilize_threshold: bool = True
    online: bool = True
    rule: str = "sltt"
    reset: Literal["subtract", "zero"] = "subtract"
    dropout: float = 0.0
    inference_threshold: InferenceThreshold = "live"
    tau: float = 2.0
    v_threshold: float = 1.0
    surrogate_slope: float = 4.0
    fallback_ratio: float = 20.0
    warm_up_statistics: bool = False
    steps: int | None = None

    def make_rule(self) -> Rule | None:
        """The state of the rule at a layer of neurons; None for a rule without a trace."""
        if self.rule not in RULES:
            known = ", ".join(map(repr, RULES))
            raise ValueError(f"rule must be one of {known}, not {self.rule!r}")
        if self.rule != "sltt" and not self.online:
            raise ValueError(
                f"rule {self.rule!r} is for online training: online must be true, not false (BPTT)"
            )
        rule = RULES[self.rule]
        return rule() if rule.has_trace else None

    def make_neuron(self) -> LIF:
        return LIF(
            tau=self.tau,
            v_threshold=self.v_threshold,
            reset=self.reset,
            stabilize_threshold=self.stabilize_threshold,
            surrogate_slope=self.surrogate_slope,
            dropout=self.dropout,
            inference_threshold=self.inference_threshold,
            online=self.online,
            rule=self.make_rule(),
            spike_scale=SPIKE_SCALE if self.norm == "ws" else 1.0,
        )

    def make_norm(self, channels: int, *, flat: bool = False) -> Norm:
        """The norm of currents (K, N, C, H, W), or if ``flat`` of (K, N, C)."""
        warm_up = self.warm_up_statistics
        if self.norm not in get_args(NormName):
            known = ", ".join(map(repr, get_args(NormName)))
            raise ValueError(f"norm must be one of {known}, not {self.norm!r}")
        if warm_up and self.norm in ("batch", "ws", *ALL_STEPS):
            raise ValueError(f"warm_up_statistics must be false with norm {self.norm!r}")
        if self.norm in ALL_STEPS and self.online:
            raise ValueError(
                f"norm {self.norm!r} sees all steps at once: online must be false (BPTT)"
            )
        if self.norm == "tab" and not self.online:
            raise ValueError(
                "norm 'tab' has no gradient to earlier steps here: online must be true, not false "
                "(BPTT)"
            )
        match self.norm:
            case "osr":
                return OSR(channels, fallback_ratio=self.fallback_ratio, warm_up_statistics=warm_up)
            case "per_step":
                return PerStepBatchNorm(channels, warm_up_statistics=warm_up)
            case "linear":
                return LinearNorm(channels, warm_up_statistics=warm_up)
            case "batch":
                return FlatBatchNorm(channels) if flat else BatchNorm(channels)
            case "ws":
                return nn.Identity()
            case "bntt":
                return BNTT(channels, self._known_steps(), warm_up_statistics=warm_up)
            case "tab":
                return TAB(channels, self._known_steps(), warm_up_statistics=warm_up)
            case "tdbn":
                return TdBN(channels, self.v_threshold)
            case "tebn":
                return TEBN(channels, self._known_steps())

    def _known_steps(self) -> int:
        if self.steps is None:
            raise ValueError(f"norm {self.norm!r} needs steps, the T of the training")
        return self.steps

    @property
    def levels(self) -> int | None:
        """Spikes are multiples of 1/levels: 1, or None where something scales them."""
        return None if self.dropout or self.norm == "ws" else 1

    def make_conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> Convolution:
        """A convolution with bias, padded so that stride 1 keeps H and W (``kernel`` is odd)."""
        if not isinstance(outputs, int) or isinstance(outputs, bool) or outputs < 1:
            raise ValueError(f"widths must each be a positive integer, not {outputs!r}")
        kind = StandardizedConvolution if self.norm == "ws" else Convolution
        return kind(inputs, outputs, kernel, stride, kernel // 2)

    def make_linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer with a norm behind it."""
        return (StandardizedLinear if self.norm == "ws" else nn.Linear)(inputs, outputs)

    def conv_norm(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, **sees: Any
    ) -> "ConvNorm":
        """A :class:`ConvNorm`; ``sees`` are its ``levels`` or ``frames``."""
        conv = self.make_conv(inputs, outputs, kernel, stride)
        return ConvNorm(conv, self.make_norm(outputs), **sees)

    def spiking_conv(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, **sees: Any
    ) -> "SpikingConv":
        """A :class:`SpikingConv`; ``sees`` are its ``levels`` or ``frames``."""
        conv = self.make_conv(inputs, outputs, kernel, stride)
        return SpikingConv(conv, self.make_norm(outputs), self.make_neuron(), **sees)

    def spiking_linear(self, inputs: int, outputs: int) -> "SpikingLinear":
        linear = self.make_linear(inputs, outputs)
        return SpikingLinear(linear, self.make_norm(outputs, flat=True), self.make_neuron())


def initialize_convolutions(model: nn.Module) -> None:
    """Kaiming normal weights by fan-out, as released; biases stay the framework's."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def per_step(layer: nn.Module, x: Tensor | Traced) -> Tensor | Traced:
    """A layer without memory applied to each step alike: (K, N, ...) as one batch of K N."""

    def apply(x: Tensor) -> Tensor:
        y: Tensor = layer(x.flatten(0, 1))  # (K, N, C, H, W) -> (K N, C, H, W)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    return on_traces(apply, x)


class FlatBatchNorm(BatchNorm):
    """:class:`~steadyspike.snn.norm.BatchNorm` for currents (K, N, C)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 2:
            raise ValueError(f"expected currents (K, N, {self.num_features})")


class ConvNorm(nn.Module):
    """Convolution, norm: (K, N, C, H, W) to currents (K, N, C', H', W').

    Args:
        conv, norm: its parts.
        levels: of its inputs, as `steadyspike.snn.conv.convolve` says.
        frames: whether its inputs are the frames, which may be the same at every step.
    """

    def __init__(
        self, conv: Convolution, norm: Norm, levels: int | None = None, *, frames: bool = False
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.levels = levels
        self.still_current = StillCurrent() if frames else None

    def forward(self, x: Tensor | Traced) -> Tensor:
        currents, offset = currents_of(self, x)
        currents = currents.expand(len(x), -1, -1, -1, -1)
        y: Tensor = self.norm(currents) if offset is None else self.norm(currents, offset)
        return y


class SpikingConv(nn.Module):
    """Convolution, norm, neurons: (K, N, C, H, W) to spikes (K, N, C', H', W').

    Args:
        conv, norm, neuron: its parts.
        levels, frames: as :class:`ConvNorm`'s.
    """

    def __init__(
        self,
        conv: Convolution,
        norm: Norm,
        neuron: LIF,
        levels: int | None = None,
        *,
        frames: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.neuron = neuron
        self.levels = levels
        self.still_current = StillCurrent() if frames else None

    def forward(self, x: Tensor | Traced) -> Tensor | Traced:
        currents, offset = currents_of(self, x)
        spikes: Tensor | Traced = self.neuron(currents, self.norm, len(x), offset)
        return spikes


def currents_of(layer: ConvNorm | SpikingConv, x: Tensor | Traced) -> tuple[Tensor, Tensor | None]:
    """The currents for the norm of ``layer``, and their bias if it is the norm that adds it."""
    offset = offset_of(layer.conv, layer.norm)
    if layer.still_current is None:
        return convolve(layer.conv, x, layer.levels, biased=offset is None), offset
    currents: Tensor = layer.still_current(layer.conv, x, biased=offset is None)
    return currents, offset


def offset_of(conv: Convolution, norm: Norm) -> Tensor | None:
    """The bias of ``conv`` if ``norm``, which comes after it, is to add it, else None."""
    return conv.bias if isinstance(norm, StepNorm) and norm.takes_offset else None


class SpikingLinear(nn.Module):
    """Linear, norm, neurons: (K, N, C) to spikes (K, N, C')."""

    def __init__(self, linear: nn.Linear, norm: Norm, neuron: LIF) -> None:
        super().__init__()
        self.linear = linear
        self.norm = norm
        self.neuron = neuron

    def forward(self, x: Tensor | Traced) -> Tensor | Traced:
        spikes: Tensor | Traced = self.neuron(linear(self.linear, x), self.norm)
        return spikes


class StepDropout(StepModule):
    """Ordinary dropout, of other elements at each step: (K, N, ...) to the same shape.

    The masks of all T steps are drawn at the first, so that they are the same for every K.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {probability}")
        self.probability = probability
        self._begin()

    def extra_repr(self) -> str:
        return f"{self.probability}"

    def _begin(self) -> None:
        self._masks: Tensor | None = None  # (T, N, ...)

    _end = _begin

    def forward(self, x: Tensor | Traced) -> Tensor | Traced:
        if not self.training:
            return x
        first, like = self._advance(len(x)), spikes_of(x)
        if self._masks is None:
            assert self._announced is not None
            keep = 1 - self.probability
            rows = like.shape[1] if self._shard is None else self._shard.total
            masks = like.new_empty((self._announced, rows, *like.shape[2:]))
            self._masks = masks.bernoulli_(keep).div_(keep)
        masks = self._masks[first : first + len(x)]
        if self._shard is not None:  # drawn for the whole batch on every process
            masks = masks.narrow(1, self._shard.first, self._shard.here)
        return x * masks


def residual_stages(
    block: Callable[[int, int, int], nn.Module], widths: Sequence[int], blocks: Sequence[int]
) -> nn.Sequential:
    """Stages of residual blocks, from ``widths[0]`` channels on; all but the first halve H and W.

    Args:
        block: makes one of input channels, output channels and stride.
        widths: the output channels of each stage.
        blocks: how many blocks each stage has.

    Raises:
        ValueError: the two differ in length, or a stage has no block.
    """
    if len(widths) != len(blocks) or not widths or min(blocks) < 1:
        raise ValueError(
            "widths and blocks must give each stage a width and at least one block, not "
            f"{tuple(widths)} and {tuple(blocks)}"
        )
    stages = []
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        first = block(widths[max(stage - 1, 0)], width, 1 if stage == 0 else 2)
        stages.append(nn.Sequential(first, *(block(width, width, 1) for _ in range(count - 1))))
    return nn.Sequential(*stages)
