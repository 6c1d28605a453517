"""ResNet-34 for ImageNet, in two forms: what a block adds to its output is spikes or currents."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from steadyspike.models.blocks import (
    ConvNorm,
    Layers,
    SpikingConv,
    currents_of,
    initialize_convolutions,
    per_step,
    residual_stages,
)
from steadyspike.snn.conv import linear
from steadyspike.snn.neuron import LIF
from steadyspike.snn.rule import Traced, on_traces

WIDTHS = (64, 128, 256, 512)
BLOCKS = (3, 4, 6, 3)


class SEWBlock(nn.Module):
    """Conv-norm-LIF twice, plus the shortcut's spikes: sums of spikes to sums of spikes.

    The shortcut is the identity, or a 1x1 conv-norm-LIF where the block changes shape.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, layers: Layers) -> None:
        super().__init__()
        self.first = layers.spiking_conv(inputs, outputs, 3, stride, levels=layers.levels)
        self.second = layers.spiking_conv(outputs, outputs, 3, levels=layers.levels)
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else layers.spiking_conv(inputs, outputs, 1, stride, levels=layers.levels)
        )

    def forward(self, x: Tensor | Traced) -> Tensor | Traced:
        out: Tensor | Traced = self.second(self.first(x)) + self.shortcut(x)
        return out


class PreActivation(nn.Module):
    """Neurons, convolution, norm, called by their :class:`NFBlock`."""

    def __init__(self, neuron: LIF, synapse: ConvNorm) -> None:
        super().__init__()
        self.neuron = neuron
        self.synapse = synapse


class NFBlock(nn.Module):
    """LIF-conv-norm twice, plus the shortcut's current: currents to currents.

    The shortcut is the identity, or a 1x1 conv-norm of the block's input current.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, layers: Layers) -> None:
        super().__init__()
        first = layers.conv_norm(inputs, outputs, 3, stride, levels=layers.levels)
        second = layers.conv_norm(outputs, outputs, 3, levels=layers.levels)
        self.first = PreActivation(layers.make_neuron(), first)
        self.second = PreActivation(layers.make_neuron(), second)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else layers.conv_norm(inputs, outputs, 1, stride)

    def forward(self, currents: Tensor) -> Tensor:
        first, second = self.first, self.second
        inner, offset = currents_of(first.synapse, first.neuron(currents))
        # The first norm and the second neurons in one operation
        spikes = second.neuron(inner, first.synapse.norm, len(inner), offset)
        out: Tensor = second.synapse(spikes) + self.shortcut(currents)
        return out


class _ResNet34(nn.Module):
    """Stem, max pooling, four stages, global average pooling, a linear layer."""

    block: type[SEWBlock] | type[NFBlock]
    stem: SpikingConv | ConvNorm

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
        **options: Any,
    ) -> None:
        super().__init__()
        layers = Layers(**options)

        def block(inputs: int, outputs: int, stride: int) -> nn.Module:
            return self.block(inputs, outputs, stride, layers)

        self.stem = self._make_stem(in_channels, widths[0], layers)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = residual_stages(block, widths, blocks)
        self.classifier = nn.Linear(widths[-1], num_classes)
        initialize_convolutions(self)

    def _make_stem(self, inputs: int, outputs: int, layers: Layers) -> SpikingConv | ConvNorm:
        raise NotImplementedError

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (K, N, C, H, W) of the next K steps to logits (K, N, classes)."""
        x: Tensor | Traced = self.stages(per_step(self.pool, self.stem(frames)))
        pooled = on_traces(lambda x: x.mean((-2, -1)), x)  # (K, N, C, H, W) -> (K, N, C)
        return linear(self.classifier, pooled)


class SEWResNet34(_ResNet34):
    """Spike-element-wise ResNet-34: frames (K, N, C, H, W) to logits (K, N, classes).

    Every convolution is conv-norm-LIF (the stem 7x7 with stride 2, then max pooling 3 with
    stride 2), and a block adds the spikes of its shortcut after its second LIF.

    Args:
        in_channels: C of the frames.
        num_classes: classes.
        widths: channels of each stage; the first is also the stem's.
        blocks: blocks of each stage.
        options: of :class:`~steadyspike.models.blocks.Layers`.

    Raises:
        TypeError: an option of another name.
        ValueError: a value that cannot be.
    """

    block = SEWBlock

    def _make_stem(self, inputs: int, outputs: int, layers: Layers) -> SpikingConv:
        return layers.spiking_conv(inputs, outputs, 7, 2, frames=True)


class NFResNet34(_ResNet34):
    """Pre-activation ResNet-34: frames (K, N, C, H, W) to logits (K, N, classes).

    The neurons of a block come before its convolutions, and it adds the current that entered it;
    the stem is conv-norm, and the pooling and the last linear layer see currents.

    Args and errors are those of :class:`SEWResNet34`.
    """

    block = NFBlock

    def _make_stem(self, inputs: int, outputs: int, layers: Layers) -> ConvNorm:
        return layers.conv_norm(inputs, outputs, 7, 2, frames=True)
