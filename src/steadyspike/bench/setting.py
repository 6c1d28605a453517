"""What one measurement trains: network, batch, steps, precision and where."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["float32", "tf32", "bfloat16"]


class Checked(BaseModel):
    """Unknown keys and wrong types in a file are refused; nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Setting(Checked):
    """Images are noise, labels random: neither changes how long a dense step takes."""

    model: Literal["vggsnn", "resnet19", "sew_resnet34", "nf_resnet34"] = "vggsnn"
    image: tuple[int, int, int] = (3, 32, 32)  # C, H, W
    widths: tuple[int | Literal["P"], ...] | None = None  # of VGGSNN; None is the paper's
    classes: int = 10
    norm: Literal["osr", "per_step", "linear"] = "osr"
    stabilize_threshold: bool = True
    steps: int = 4  # T
    chunk: int = 1  # K
    batch: int = 32  # N
    precision: Precision = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    pinned: bool = False  # threads and instruction set as `steadyspike train` has them

    def but(self, **changes: Any) -> "Setting":
        """The same with other values, checked."""
        return Setting.model_validate({**self.model_dump(), **changes})
