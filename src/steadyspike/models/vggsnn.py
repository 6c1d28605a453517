"""VGGSNN (Table 3): 64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-GAP-FC."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from steadyspike.models.blocks import (
    Layers,
    SpikingLinear,
    StepDropout,
    initialize_convolutions,
)
from steadyspike.snn.conv import AveragePool, linear
from steadyspike.snn.rule import Traced, on_traces

WIDTHS: tuple[int | Literal["P"], ...] = (64, 128, "P", 256, 256, "P", 512, 512, "P", 512, 512)
HEAD_WIDTHS = (1024, 1024)
HEAD_SCALE = 2.74  # of the hidden layers' spikes, as released
HEAD_DROPOUT = 0.5


class VGGSNN(nn.Module):
    """Spiking VGG: frames (K, N, C, H, W) to logits (K, N, classes).

    Each width is a 3x3 convolution with bias, a norm and LIF neurons; each ``"P"`` an average
    pooling by 2. Global average pooling and a linear layer end it.

    Args:
        in_channels: C of the frames.
        num_classes: classes.
        widths: output channels of the convolutions, with ``"P"`` for a pooling.
        head: ``"gesture"`` puts two hidden spiking layers before the last linear one, as for
            DVS-Gesture.
        head_widths: outputs of the gesture head's hidden layers.
        options: of :class:`~steadyspike.models.blocks.Layers`.

    Raises:
        TypeError: an option of another name.
        ValueError: a width, the head or an option's value is none of these.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int | Literal["P"]] = WIDTHS,
        head: Literal["linear", "gesture"] = "linear",
        head_widths: Sequence[int] = HEAD_WIDTHS,
        **options: Any,
    ) -> None:
        super().__init__()
        layers = Layers(**options)
        if head not in ("linear", "gesture"):
            raise ValueError(f"head must be 'linear' or 'gesture', not {head!r}")
        if all(width == "P" for width in widths):
            raise ValueError(f"widths must hold a convolution, not {list(widths)}")
        features: list[nn.Module] = []
        channels = in_channels
        sees: dict[str, Any] = {"frames": True}
        for width in widths:
            if width == "P":
                features.append(AveragePool())
                if sees.get("levels"):  # means over four spikes
                    sees = {"levels": 4 * sees["levels"]}
            elif isinstance(width, int) and width > 0:
                features.append(layers.spiking_conv(channels, width, 3, **sees))
                channels, sees = width, {"levels": layers.levels}
            else:
                raise ValueError(f"widths must each be a positive integer or 'P', not {width!r}")
        self.features = nn.Sequential(*features)
        hidden = []
        for width in head_widths if head == "gesture" else ():
            hidden.append(HiddenLayer(layers.spiking_linear(channels, width)))
            channels = width
        self.hidden = nn.Sequential(*hidden)
        self.classifier = nn.Linear(channels, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        # As released: linear weights normal(0, 0.01), all biases 0
        initialize_convolutions(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (K, N, C, H, W) of the next K steps to logits (K, N, classes)."""
        spikes: Tensor | Traced = self.features(frames)
        pooled = on_traces(lambda x: x.mean((-2, -1)), spikes)  # (K, N, C, H, W) -> (K, N, C)
        return linear(self.classifier, self.hidden(pooled))


class HiddenLayer(nn.Module):
    """A hidden layer of the gesture head: linear, norm, neurons, scale, dropout."""

    def __init__(self, layer: SpikingLinear) -> None:
        super().__init__()
        self.layer = layer
        # Neurons behind standardized weights have scaled their spikes already.
        self.scale = HEAD_SCALE / layer.neuron.spike_scale
        self.dropout = StepDropout(HEAD_DROPOUT)

    def forward(self, x: Tensor | Traced) -> Tensor | Traced:
        out: Tensor | Traced = self.dropout(self.layer(x) * self.scale)
        return out
