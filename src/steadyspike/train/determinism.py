"""Makes torch deterministic."""

import torch
import torch.utils.deterministic


def make_deterministic() -> None:
    """The same program on the same machine gives the same bits, or torch raises.

    `steadyspike.pins.pin_cpu` must have run before torch was imported.
    """
    # Replaces kernels that add in no fixed order (atomics), or raises where there is no other.
    # The same as use_deterministic_algorithms(True), without a second of imports.
    torch.set_deterministic_debug_mode("error")
    # The line above would also fill new tensors with NaN, to show reads of unwritten memory: a
    # pass over every activation. Tests cover that.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # cuDNN would time several kernels and keep the fastest, which differs from run to run.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # TF32 keeps 10 bits of the mantissa; `build_model` allows it for training.precision tf32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
