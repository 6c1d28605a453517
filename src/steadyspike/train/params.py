"""params.yaml as plain data: read safely, defaults and overrides merged."""

import re
import reprlib
from pathlib import Path
from typing import Any

import yaml

from steadyspike.errors import UserError
from steadyspike.files import read_at_most

#: More values than any params.yaml has; aliases of aliases could otherwise stand for billions.
MOST_VALUES = 10_000
MOST_BYTES = 1 << 20
DEEPEST = 20
LONGEST_NUMBER = 100  # characters


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats (``5e-4``, which YAML 1.1 reads as text), no key given twice, no bombs."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.depth == DEEPEST:
            raise yaml.YAMLError(f"nested too deep; expected at most {DEEPEST} levels")
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _values(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES} values")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
                raise ValueError
            value = super().construct_object(node, deep)
            if isinstance(value, int) and abs(value) >= 2**64:
                raise ValueError
        except (ValueError, KeyError, AttributeError):  # the parsers of dates and numbers
            line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
            raise yaml.YAMLError(f"line {line}: {reprlib.repr(node.value)} is no {kind}") from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str):
                if key in seen:
                    line = key_node.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: the key '{key}' is given twice")
                seen.add(key)
        return super().construct_mapping(node, deep)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _values(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How many values a node stands for once its aliases are written out."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: an alias stands for what it is part of")
        return count
    known[id(node)] = None
    parts = node.value if isinstance(node, yaml.CollectionNode) else []
    children = [child for part in parts for child in (part if type(part) is tuple else (part,))]
    count = known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return count


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> Any:
    """The document in ``path``; UserError if it cannot be read or is no YAML."""
    try:
        text = read_at_most(path, MOST_BYTES).decode()
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise UserError(f"{path}: no valid YAML: nested too deep") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None


def read_params(path: Path) -> dict[str, dict[str, Any]]:
    """The overrides of every experiment merged onto the defaults, by experiment.

    Raises:
        UserError: the file does not have the form ``defaults: {...}``,
            ``experiments: {name: {...}}``, or a name is no plain folder name.
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("experiments"), dict):
        raise UserError(f"{path}: expected the keys 'defaults' and 'experiments', both mappings")
    unknown = sorted(str(key) for key in document.keys() - {"defaults", "experiments"})
    if unknown:
        raise UserError(f"{path}: {unknown[0]}: unknown key, expected 'defaults' or 'experiments'")
    defaults = document.get("defaults")
    defaults = {} if defaults is None else defaults
    if not isinstance(defaults, dict):
        raise UserError(f"{path}: defaults: expected a mapping, got {reprlib.repr(defaults)}")
    merged = {}
    for name, overrides in document["experiments"].items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
            raise UserError(
                f"{path}: experiments.{name}: a name is made of letters, digits, '_', '-' and '.'"
            )
        overrides = {} if overrides is None else overrides
        if not isinstance(overrides, dict):
            raise UserError(
                f"{path}: experiments.{name}: expected a mapping, got {reprlib.repr(overrides)}"
            )
        merged[name] = merge(defaults, overrides)
    return merged


def merge(defaults: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """``overrides`` on ``defaults``, mapping by mapping."""
    merged = dict(defaults)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = (
            merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged
