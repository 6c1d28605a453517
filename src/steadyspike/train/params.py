"""Reads params.yaml by the rules of YAML 1.2, as DVC does, and merges overrides onto defaults."""

import re
import reprlib
from pathlib import Path
from typing import Any

import yaml

from steadyspike.errors import UserError


class _Loader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1, where 010 is 8, 1:30 is 90, on is true and 5e-4 is text.

    The resolvers are those of ruamel.yaml, DVC's reader. A key given twice is an error there too.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            keys.add((key.tag, str(key.value)))
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 0 if text.lstrip("+-")[:2] in ("0b", "0o", "0x") else 10)


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _kind, _pattern, _first_letters in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9_]+([eE][-+][0-9]+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("int", r"[-+]?(0b[01_]+|0o[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), list(_first_letters)
    )


def read_yaml(path: Path) -> Any:
    """The document in ``path``; UserError if it cannot be read or is not YAML 1.2."""
    try:
        text = path.read_text(encoding="utf-8")
        if re.search(r"(?m)^%YAML\s+(?!1\.2\b)", text):  # DVC would read it by other rules
            raise UserError(f"{path}: invalid YAML: expected '%YAML 1.2', or no such line")
        return yaml.load(text, _Loader)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; run this in the checkout, or name another file with --params"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise UserError(f"{path}: invalid YAML: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from None


def read_params(path: Path) -> dict[str, dict[str, Any]]:
    """The overrides of every experiment merged onto the defaults, by experiment.

    Raises:
        UserError: the file does not have the form ``defaults: {...}``,
            ``experiments: {name: {...}}``, or DVC could not address an experiment of that name.
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("experiments"), dict):
        raise UserError(f"{path}: expected the keys 'defaults' and 'experiments', both mappings")
    unknown = sorted(str(key) for key in document.keys() - {"defaults", "experiments"})
    if unknown:
        raise UserError(f"{path}: {unknown[0]}: unknown key, expected 'defaults' or 'experiments'")
    defaults = _mapping(document.get("defaults"), f"{path}: defaults")
    merged = {}
    for name, overrides in document["experiments"].items():
        key = f"{path}: experiments.{name}"
        # A name is part of a stage (train@name), of a parameter's key and of a folder's name.
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
            raise UserError(
                f"{key}: expected a name of letters, digits, '_' and '-', at most 100, that begins "
                "with a letter or digit"
            )
        if name == "bench":
            raise UserError(f"{key}: expected another name: runs/bench holds benchmarks")
        merged[name] = merge(defaults, _mapping(overrides, key))
    return merged


def _mapping(value: Any, key: str) -> dict[str, Any]:
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError(f"{key}: expected a mapping, got {reprlib.repr(value)}")
    return value


def merge(defaults: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """``overrides`` on ``defaults``, mapping by mapping."""
    merged = dict(defaults)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = (
            merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"training": {"steps": 4}}`` as ``{"training.steps": 4}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def read_overrides(path: Path) -> dict[str, frozenset[str]]:
    """The dotted keys in which each experiment differs from the defaults, of a file read before."""
    document = read_yaml(path)
    defaults = flatten(document.get("defaults") or {})
    return {
        name: frozenset(
            key
            for key, value in flatten(overrides or {}).items()
            if key not in defaults or defaults[key] != value
        )
        for name, overrides in document["experiments"].items()
    }
