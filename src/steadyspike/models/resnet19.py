"""ResNet-19: three stages of basic blocks, wide, for images of about 32 by 32 (Table 1)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from steadyspike.models.blocks import (
    Layers,
    initialize_convolutions,
    offset_of,
    per_step,
    residual_stages,
)
from steadyspike.snn.conv import convolve, linear
from steadyspike.snn.rule import Traced, on_traces, spikes_of


class BasicBlock(nn.Module):
    """Conv-norm-LIF-conv, plus the shortcut's current, norm, LIF: spikes to spikes.

    The sum is normalized, not the branch. The shortcut is the identity, or a 1x1 convolution and
    a norm where the block changes shape.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, layers: Layers) -> None:
        super().__init__()
        self.first = layers.spiking_conv(inputs, outputs, 3, stride, levels=layers.levels)
        self.conv = layers.make_conv(outputs, outputs, 3)
        self.levels = layers.levels
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else layers.conv_norm(inputs, outputs, 1, stride, levels=layers.levels)
        )
        self.norm = layers.make_norm(outputs)
        self.neuron = layers.make_neuron()

    def forward(self, spikes: Tensor | Traced) -> Tensor | Traced:
        offset = offset_of(self.conv, self.norm)
        branch = convolve(self.conv, self.first(spikes), self.levels, biased=offset is None)
        currents = branch + spikes_of(self.shortcut(spikes))
        out: Tensor | Traced = self.neuron(currents, self.norm, len(currents), offset)
        return out


class ResNet19(nn.Module):
    """Spiking ResNet-19: frames (K, N, C, H, W) to logits (K, N, classes).

    A 3x3 convolution; stages of :class:`BasicBlock`; average pooling by 2; a linear layer with a
    norm and no neurons; a linear layer.

    Args:
        in_channels: C of the frames.
        num_classes: classes.
        widths: channels of each stage; the first is also the stem's.
        blocks: blocks of each stage.
        hidden_width: outputs of the first linear layer.
        image_size: H = W of the frames, which the first linear layer's inputs depend on.
        update_head_norm: False keeps the running statistics of the norm between the linear layers
            as they are (0 and 1, or as loaded), as the released code does.
        options: of :class:`~steadyspike.models.blocks.Layers`.

    Raises:
        TypeError: an option of another name.
        ValueError: a value that cannot be, here or, of the frames' size, in the forward pass.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = (128, 256, 512),
        blocks: Sequence[int] = (3, 3, 2),
        hidden_width: int = 256,
        image_size: int = 32,
        update_head_norm: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        layers = Layers(**options)
        self.image_size = image_size
        side = image_size
        for _ in widths[1:]:
            side = (side + 1) // 2  # a stage's stride
        side //= 2  # the pooling
        if side < 1:
            raise ValueError(f"image_size {image_size} leaves nothing after {len(widths)} stages")

        def block(inputs: int, outputs: int, stride: int) -> nn.Module:
            return BasicBlock(inputs, outputs, stride, layers)

        self.stem = layers.spiking_conv(in_channels, widths[0], 3, frames=True)
        self.stages = residual_stages(block, widths, blocks)
        self.pool = nn.AvgPool2d(2)
        self.hidden = layers.make_linear(widths[-1] * side**2, hidden_width)
        self.hidden_norm = layers.make_norm(hidden_width, flat=True)
        if not update_head_norm:
            self.hidden_norm.momentum = 0.0  # the weight of the new statistics, of every norm
        self.classifier = nn.Linear(hidden_width, num_classes)
        initialize_convolutions(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (K, N, C, H, W) of the next K steps to logits (K, N, classes)."""
        spikes = self.stages(self.stem(frames))
        # (K, N, C, H, W) -> (K, N, C H W)
        pooled = on_traces(lambda x: x.flatten(2), per_step(self.pool, spikes))
        if spikes_of(pooled).shape[-1] != self.hidden.in_features:
            raise ValueError(
                f"this ResNet19 is for frames of {self.image_size} by {self.image_size} "
                f"(image_size), not {frames.shape[-2]} by {frames.shape[-1]}"
            )
        logits: Tensor = self.classifier(self.hidden_norm(linear(self.hidden, pooled)))
        return logits
