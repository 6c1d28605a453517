"""Spatial learning through time: no trace, so all learning is within a step (Eq. 6-7)."""

from steadyspike.snn.rule import Rule


class SLTT(Rule):
    """μ = 0, the rule of the paper. Meng et al., ICCV 2023."""

    has_trace = False
