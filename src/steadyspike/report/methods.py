"""The methods that the paper compares: their names, and how their lines look in figures."""

from dataclasses import dataclass, replace
from typing import Any

from steadyspike.models.blocks import NormName
from steadyspike.train.config import ModelOptions

#: Names of `model.norm` in tables and figures.
NORM_LABELS: dict[NormName, str] = {
    "per_step": "per-step BN",
    "osr": "OSR",
    "linear": "linear transform",
    "batch": "BN",
    "ws": "weight standardization",
    "bntt": "BNTT",
    "tab": "TAB",
    "tdbn": "tdBN",
    "tebn": "TEBN",
}
#: Names of `model.rule`, where a method does not say it already; a rule added has its own.
RULE_LABELS = {"sltt": "", "sltt_k": "SLTT-K", "ottt": "OTTT", "ndot": "NDOT"}


@dataclass(frozen=True)
class Method:
    """One way to train; `key` is its name in paper.yaml, `colour` one of `plotting.COLOURS`."""

    key: str
    label: str
    norm: NormName
    stabilize_threshold: bool
    online: bool
    colour: str = "olive"
    marker: str = "P"
    dashes: tuple[float, ...] = (4, 1.5)
    base: str = ""  # of a variant of ours, the method that it varies

    @property
    def look(self) -> dict[str, Any]:
        """Arguments of `plotting.line_style`."""
        return {"name": self.colour, "marker": self.marker, "dashes": self.dashes}

    @property
    def rank(self) -> float:
        """Place in tables: the paper's order, variants behind their method, others behind all."""
        known = self.base or self.key
        place = list(METHODS).index(known) if known in METHODS else len(METHODS)
        return place + 0.5 * bool(self.base)


#: Marker and dashes tell methods apart where colour cannot.
METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        Method("per_step", "vanilla BN", "per_step", False, True, "amber", "s", (5, 2)),
        Method("ots", "OTS", "per_step", True, True, "teal", "^", (2, 1.5)),
        Method("osr", "OSR", "osr", False, True, "blue", "D", (7, 2, 1.5, 2)),
        Method("osr_ots", "OSR + OTS", "osr", True, True, "crimson", "o", ()),
        Method("linear", "linear transform", "linear", False, True, "violet", "v", (1, 1.2)),
        Method("bptt", "BPTT + BN", "batch", False, False, "slate", "X", (4, 1.2, 1, 1.2, 1, 1.2)),
    )
}


def method_of(model: ModelOptions) -> Method:
    """The method of an experiment's model options; "(ours)" where the paper has no such thing."""
    chosen = (model.norm, model.stabilize_threshold, model.online)
    rule = RULE_LABELS.get(model.rule, model.rule)
    for method in METHODS.values():
        if (method.norm, method.stabilize_threshold, method.online) == chosen and not rule:
            return _warmed_up(method) if model.warm_up_statistics else method
    parts = [
        *([rule] if rule else []),
        *([] if model.online else ["BPTT"]),
        NORM_LABELS[model.norm],
    ]
    label = " + ".join([*parts, *(["OTS"] if model.stabilize_threshold else [])])
    other = Method(label, label, *chosen)
    return _warmed_up(other) if model.warm_up_statistics else other


def _warmed_up(method: Method) -> Method:
    """In the same colour as without, with another marker and dashes."""
    label = f"{method.label}, warmed up (ours)"
    return replace(method, key=label, label=label, marker="P", dashes=(4, 1.5), base=method.key)
