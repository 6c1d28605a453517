"""One function makes torch deterministic; each flag says why."""

import torch
import torch.utils.deterministic


def make_deterministic() -> None:
    """The same program on the same machine gives the same bits, or torch raises.

    `steadyspike.pins.pin_cpu` belongs before torch's import; this comes after it.
    """
    # Kernels that add in no fixed order (atomics) are replaced, or refused where there is no other.
    # (The same as use_deterministic_algorithms(True), but without a second of imports.)
    torch.set_deterministic_debug_mode("error")
    # Filling fresh memory with NaN, which the line above switches on, costs a pass over every
    # activation and guards against reading what was never written, which tests do.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # cuDNN may time several kernels and keep the fastest: another run, another choice.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # TF32 keeps 10 bits of the mantissa: never without being asked for (training.precision).
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
