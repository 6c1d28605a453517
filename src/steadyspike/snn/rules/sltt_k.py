"""SLTT-K: as SLTT, with a backward pass at some of the steps only."""

from steadyspike.snn.rule import Rule


class SLTTK(Rule):
    """μ = 0, and K of the T steps, drawn anew for every batch, are learned from.

    The loss stays a sum over those steps divided by T. Statistics for norms and thresholds are
    gathered at every step. Meng et al., ICCV 2023.
    """

    has_trace = False
    draws_steps = True
