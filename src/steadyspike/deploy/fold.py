"""A trained network as plain convolutions, poolings and neurons, which other software has too.

Norms are folded into the weights before them, thresholds too, so that every neuron fires at 1:

    W' = g W γ / (θ √(σ̂² + ε))        b' = (b γ / √(σ̂² + ε) + β - μ̂ γ / √(σ̂² + ε)) / θ

with the running statistics μ̂, σ̂² of each channel, a layer's θ, and g for what lies before the
weights: 1/4 where an average over 2 by 2 pixels becomes a sum, for example. Everything is computed
in float64 and then rounded once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from steadyspike.deploy.folded import Folded, Neuron, Node, SumPool
from steadyspike.models import VGGSNN, NFResNet34, ResNet19, SEWResNet34
from steadyspike.models.blocks import ConvNorm, FlatBatchNorm, Norm, SpikingConv
from steadyspike.models.resnet19 import BasicBlock
from steadyspike.models.vggsnn import HEAD_SCALE
from steadyspike.snn.conv import AveragePool
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR, BatchNorm, LinearNorm, PerStepBatchNorm
from steadyspike.snn.norm_all_steps import TdBN


def fold(model: nn.Module, input_shape: tuple[int, int, int]) -> Folded:
    """Fold a trained network of :mod:`steadyspike.models`.

    Dropout, which only training has, is left out.

    Args:
        model: with one threshold a layer: without OTS, or ``inference_threshold="layer"``.
        input_shape: (C, H, W) of its frames, which poolings over the whole image depend on.

    Raises:
        ValueError: its thresholds change from step to step, or none were learned; a norm cannot be
            folded.
    """
    builder = _Builder(input_shape)
    _NETWORKS[type(model)](builder, model, _Signal(("input",)))
    return Folded(builder.nodes, input_shape).to(next(model.parameters()).dtype).eval()


_FOLDABLE = (OSR, PerStepBatchNorm, LinearNorm, BatchNorm, FlatBatchNorm, TdBN)


class _Signal(NamedTuple):
    """The sum of the outputs of some nodes, times ``gain``, which the next weights take over."""

    sources: tuple[str, ...]
    gain: float = 1.0

    def plus(self, other: "_Signal") -> "_Signal":
        assert self.gain == other.gain
        return _Signal(self.sources + other.sources, self.gain)

    def times(self, factor: float) -> "_Signal":
        return _Signal(self.sources, self.gain * factor)


class _Affine(NamedTuple):
    """y = scale x + shift for each channel, in float64."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norm: Norm) -> "_Affine":
        """What a norm does at inference, also the framework's, by its running statistics."""
        if type(norm) not in _FOLDABLE:
            raise ValueError(f"norm: a {type(norm).__name__} cannot be folded into weights")
        mean: Any = norm.running_mean  # torch allows None, which is not used
        var: Any = norm.running_var
        scale = norm.weight.double() / (var.double() + norm.eps).sqrt()
        return cls(scale, norm.bias.double() - scale * mean.double())

    def over(self, threshold: float) -> "_Affine":
        return _Affine(self.scale / threshold, self.shift / threshold)


class _Builder:
    """Adds nodes one by one; every method returns the signal that leaves the new ones."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.nodes: dict[str, Node] = {}
        self.input_shape = input_shape

    def shape(self, x: _Signal) -> tuple[int, ...]:
        first = x.sources[0]
        return self.input_shape if first == "input" else self.nodes[first].shape

    def add(self, name: str, x: _Signal, module: nn.Module) -> _Signal:
        """Add a module without a state; the gain passes through it."""
        probe = torch.zeros(1, *self.shape(x), dtype=torch.float64)
        shape = tuple(module(probe).shape[1:])
        self.nodes[name] = Node(x.sources, module, shape)
        return _Signal((name,), x.gain)

    def neurons(self, name: str, x: _Signal, lif: LIF, threshold: float = 1.0) -> _Signal:
        neuron = Neuron(lif.leak, threshold, zero_reset=lif.reset == "zero")
        self.nodes[name] = Node(x.sources, neuron, self.shape(x))
        return _Signal((name,))

    def synapse(
        self, name: str, x: _Signal, layer: nn.Conv2d | nn.Linear, norm: _Affine | None = None
    ) -> _Signal:
        """A convolution or linear layer, with the norm after it and the gain before it."""
        weight = layer.weight.detach().double() * x.gain
        outputs = len(weight)
        bias = weight.new_zeros(outputs) if layer.bias is None else layer.bias.detach().double()
        if norm is not None:
            weight = weight * norm.scale.view(-1, *[1] * (weight.dim() - 1))
            bias = bias * norm.scale + norm.shift
        folded: nn.Conv2d | nn.Linear
        if isinstance(layer, nn.Conv2d):
            where: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding}
            folded = nn.Conv2d(weight.shape[1], outputs, weight.shape[2:], **where)  # type: ignore[arg-type]
        else:
            folded = nn.Linear(weight.shape[1], outputs)
        folded.weight, folded.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)
        return self.add(name, _Signal(x.sources), folded)

    def scaled(self, name: str, x: _Signal, scale: Tensor) -> _Signal:
        """Each channel times a factor, as a 1x1 convolution: few simulators know a scale."""
        identity = nn.Conv2d(len(scale), len(scale), 1, bias=False)
        identity.weight = nn.Parameter(torch.eye(len(scale))[:, :, None, None])
        return self.synapse(name, x, identity, _Affine(scale, torch.zeros_like(scale)))

    def spiking(
        self, name: str, x: _Signal, layer: nn.Conv2d | nn.Linear, norm: Norm, lif: LIF
    ) -> _Signal:
        """A layer, its norm and its neurons, which then fire at 1."""
        affine = _Affine.of(norm).over(_threshold(lif))
        return self.neurons(name, self.synapse(f"{name}_synapse", x, layer, affine), lif)

    def spiking_conv(self, name: str, x: _Signal, block: SpikingConv) -> _Signal:
        return self.spiking(name, x, block.conv, block.norm, block.neuron)

    def conv_norm(self, name: str, x: _Signal, block: ConvNorm) -> _Signal:
        return self.synapse(name, x, block.conv, _Affine.of(block.norm))

    def pool(self, name: str, x: _Signal, *kernel: int) -> _Signal:
        """Means as sums, the division left to the next weights."""
        return self.add(name, x, SumPool(*kernel)).times(1 / (kernel[0] * kernel[1]))

    def global_pool(self, x: _Signal) -> _Signal:
        """The mean of each channel, (C, H, W) to (C,)."""
        _, height, width = self.shape(x)
        return self.add("flatten", self.pool("global_pool", x, height, width), nn.Flatten())


def _threshold(lif: LIF) -> float:
    """The one θ of a layer at inference."""
    if not lif.stabilize_threshold:
        return lif.v_threshold
    if lif.inference_threshold != "layer":
        raise ValueError(
            "inference_threshold: expected one threshold a layer ('layer'), not thresholds that "
            f"change from step to step ({lif.inference_threshold!r})"
        )
    if len(lif.running_threshold) == 0:
        raise ValueError("inference_threshold: the weights hold no thresholds learned in training")
    return float(lif.running_threshold.double().mean())


def _vggsnn(b: _Builder, model: VGGSNN, x: _Signal) -> None:
    for place, block in enumerate(model.features):
        name = f"features_{place}"
        if isinstance(block, AveragePool):
            x = b.pool(name, x, 2, 2)
        else:
            assert isinstance(block, SpikingConv)
            x = b.spiking_conv(name, x, block)
    x = b.global_pool(x)
    for place, hidden in enumerate(model.hidden):
        layer: Any = hidden.layer
        x = b.spiking(f"hidden_{place}", x, layer.linear, layer.norm, layer.neuron)
        x = x.times(HEAD_SCALE)
    b.synapse("classifier", x, model.classifier)


def _resnet19(b: _Builder, model: ResNet19, x: _Signal) -> None:
    x = b.spiking_conv("stem", x, model.stem)
    for name, block in _blocks(model):
        x = _basic_block(b, name, x, block)
    pooled = b.add("flatten", b.pool("pool", x, 2, 2), nn.Flatten())
    hidden = b.synapse("hidden", pooled, model.hidden, _Affine.of(model.hidden_norm))
    b.synapse("classifier", hidden, model.classifier)


def _basic_block(b: _Builder, name: str, x: _Signal, block: BasicBlock) -> _Signal:
    """The norm of the sum of branch and shortcut is folded into both."""
    norm = _Affine.of(block.norm).over(_threshold(block.neuron))
    spikes = b.spiking_conv(f"{name}_first", x, block.first)
    branch = b.synapse(f"{name}_conv", spikes, block.conv, norm)
    if isinstance(block.shortcut, ConvNorm):
        own = _Affine.of(block.shortcut.norm)
        both = _Affine(own.scale * norm.scale, own.shift * norm.scale)
        shortcut = b.synapse(f"{name}_shortcut", x, block.shortcut.conv, both)
    else:
        shortcut = b.scaled(f"{name}_shortcut", x, norm.scale)
    return b.neurons(name, branch.plus(shortcut), block.neuron)


def _sew_resnet34(b: _Builder, model: SEWResNet34, x: _Signal) -> None:
    assert isinstance(model.stem, SpikingConv)
    x = b.add("pool", b.spiking_conv("stem", x, model.stem), model.pool)
    for name, block in _blocks(model):
        spikes = b.spiking_conv(f"{name}_first", x, block.first)
        spikes = b.spiking_conv(f"{name}_second", spikes, block.second)
        if isinstance(block.shortcut, SpikingConv):
            x = b.spiking_conv(f"{name}_shortcut", x, block.shortcut)
        x = spikes.plus(x)
    b.synapse("classifier", b.global_pool(x), model.classifier)


def _nf_resnet34(b: _Builder, model: NFResNet34, x: _Signal) -> None:
    assert isinstance(model.stem, ConvNorm)
    x = b.add("pool", b.conv_norm("stem", x, model.stem), model.pool)
    for name, block in _blocks(model):
        branch = x
        for part, unit in (("first", block.first), ("second", block.second)):
            # Its currents go elsewhere too, so the threshold cannot be folded into them.
            threshold = _threshold(unit.neuron)
            spikes = b.neurons(f"{name}_{part}", branch, unit.neuron, threshold)
            branch = b.conv_norm(f"{name}_{part}_synapse", spikes, unit.synapse)
        if isinstance(block.shortcut, ConvNorm):
            x = b.conv_norm(f"{name}_shortcut", x, block.shortcut)
        x = branch.plus(x)
    b.synapse("classifier", b.global_pool(x), model.classifier)


def _blocks(model: Any) -> list[tuple[str, Any]]:
    """The residual blocks of a network by name, in their order."""
    return [
        (f"stage_{place}_{number}", block)
        for place, stage in enumerate(model.stages)
        for number, block in enumerate(stage)
    ]


_NETWORKS: dict[type[nn.Module], Callable[[_Builder, Any, _Signal], None]] = {
    VGGSNN: _vggsnn,
    ResNet19: _resnet19,
    SEWResNet34: _sew_resnet34,
    NFResNet34: _nf_resnet34,
}
