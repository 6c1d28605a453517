"""The loss of each step (Eq. 5)."""

import torch.nn.functional as F
from torch import Tensor


def tet_loss(logits: Tensor, labels: Tensor, *, steps: int, mse_weight: float) -> Tensor:
    """``1/T Σ_t [(1-ε) CE(o[t], y) + ε MSE(o[t], onehot(y))]`` over the K steps given (Eq. 5).

    Args:
        logits: o, (K, N, classes).
        labels: y, (N,) class indices.
        steps: T of the whole presentation, whatever K is.
        mse_weight: ε.

    Returns:
        A scalar. The sum over all chunks of a presentation is the loss of Eq. 5.
    """
    k, _, classes = logits.shape
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), labels.repeat(k))
    target = F.one_hot(labels, classes).to(logits.dtype).expand_as(logits)
    # Both are means over K N; a chunk stands for K of the T steps.
    return ((1 - mse_weight) * cross_entropy + mse_weight * F.mse_loss(logits, target)) * k / steps
