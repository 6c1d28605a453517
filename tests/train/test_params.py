from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.errors import UserError
from steadyspike.train.params import merge, read_params, read_yaml
from tiny import REPOSITORY

PARAMS = [REPOSITORY / "params.yaml", *sorted(REPOSITORY.glob("pipelines/*/params.yaml"))]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("params") / "params.yaml"


def test_overrides_are_merged_onto_the_defaults(path: Path) -> None:
    path.write_text(
        "defaults: {a: 1, b: {c: 2, d: [1, 2]}}\n"
        "experiments:\n"
        "  plain:\n"
        "  empty: {}\n"
        "  other: {b: {d: [3]}, e: x}\n"
    )
    assert read_params(path) == {
        "plain": {"a": 1, "b": {"c": 2, "d": [1, 2]}},
        "empty": {"a": 1, "b": {"c": 2, "d": [1, 2]}},
        "other": {"a": 1, "b": {"c": 2, "d": [3]}, "e": "x"},
    }
    path.write_text("experiments: {a: {x: 1}}")
    assert read_params(path) == {"a": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("-1E3", -1000.0),
        ("1.", 1.0),
        ("010", 10),
        ("0o10", 8),
        ("1:30", "1:30"),
        ("on", "on"),
        ("no", "no"),
        ("e3", "e3"),
        ("'5e-4'", "5e-4"),
        ("true", True),
        ("null", None),
        (".inf", float("inf")),
    ],
)
def test_scalars_are_those_of_yaml_1_2(path: Path, text: str, value: Any) -> None:
    path.write_text(f"experiments: {{a: {{x: {text}}}}}")
    read = read_params(path)["a"]["x"]
    assert read == value
    assert type(read) is type(value)


def as_dvc(path: Path) -> Any:
    """The document as DVC reads it, or an error of its parser."""
    serialize = pytest.importorskip("dvc.utils.serialize")
    return serialize.load_yaml(path)


scalars = st.text("0123456789_.+-eExobinaNfFtrusl~:", min_size=1, max_size=6) | st.sampled_from(
    ["yes", "Off", "True", "FALSE", "tRUE", "Null", ".NaN", "-.INF", "1_000", "0b12", "<<", ".5e3"]
)


@given(scalars)
def test_a_scalar_is_read_as_dvc_reads_it(path: Path, text: str) -> None:
    path.write_text(f"a: {text}\nb: [{text}]\n")
    try:
        expected = as_dvc(path)
    except Exception:
        with pytest.raises(UserError):
            read_yaml(path)
    else:
        assert repr(read_yaml(path)) == repr(expected)  # NaN is not equal to itself


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a",
        "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\nd: {y: 3, <<: [*b, *a]}",
        # b is merged before the mapping below it, of which it is made, has been merged itself
        "m: &m {x: 2}\ndefaults: {deep: {deeper: &a {<<: *m, x: 1}}}\nb: {<<: *a}",
        *(file.read_text() for file in PARAMS),
    ],
)
def test_a_document_is_read_as_dvc_reads_it(path: Path, text: str) -> None:
    path.write_text(text)
    assert read_yaml(path) == as_dvc(path)


NAME = "expected a name of letters, digits, '_' and '-', at most 100, that begins"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the keys 'defaults' and 'experiments', both mappings"),
        ("defaults: {}", "expected the keys"),
        ("experiments: [a]", "expected the keys"),
        ("experiments: {}\nextra: 1", "extra: unknown key, expected 'defaults' or 'experiments'"),
        ("experiments: {}\ndefaults: []", r"defaults: expected a mapping, got \[\]"),
        ("experiments: {a: [b]}", r"experiments.a: expected a mapping, got \['b'\]"),
        *(
            (f"experiments: {{{name}: {{}}}}", NAME)
            for name in ("a/b", "'..'", "'.a'", "a.b", "'-a'", "''", "'a b'", "ö", "1", "a" * 101)
        ),
        ("experiments: {bench: {}}", "experiments.bench: expected another name"),
        ("%YAML 1.1\n---\nexperiments: {}", "expected '%YAML 1.2', or no such line"),
        ("experiments: {a: {}, a: {}}", "line 1: the key 'a' is given twice"),
        ("experiments:\n  a:\n    x: 1\n    y: 2\n    x: 3", "line 5: the key 'x' is given twice"),
        ("experiments: {a: 'b}", "invalid YAML: line 1: found unexpected end of stream"),
        ("defaults:\n  a: b: c", "invalid YAML: line 2: mapping values are not allowed here"),
        ("experiments: {a: {x: !!int y}}", "invalid YAML: invalid literal"),
        ("experiments: {a: {? [1] : 2}}", "invalid YAML: line 1: found unhashable key"),
        ("!!python/object/apply:os.getcwd []", "invalid YAML: line 1: could not determine a con"),
        ("experiments: {a: *b}", "invalid YAML: line 1: found undefined alias 'b'"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError, match=rf"^{path}: .*{message}") as raised:
        read_params(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes(b"experiments: {a: {x: \xe4}}")
    with pytest.raises(UserError, match="latin1: cannot be read"):
        read_params(tmp_path / "latin1")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from(["defaults", "experiments", "x"]), values)


@given(st.text() | (values | documents).map(lambda value: str(yaml.safe_dump(value))))
def test_any_text_is_read_or_refused(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        read = read_params(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    else:
        assert all(isinstance(overrides, dict) for overrides in read.values())


trees = st.dictionaries(st.sampled_from("abc"), st.integers() | st.none(), max_size=3)
for _ in range(2):
    trees = st.dictionaries(st.sampled_from("abc"), trees | st.integers(), max_size=3)


@given(trees, trees)
def test_merging(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert merge(a, {}) == merge({}, a) == merge(a, a) == a
    before = repr((a, b))
    merged = merge(a, b)
    assert repr((a, b)) == before  # neither is changed
    assert merged.keys() == a.keys() | b.keys()
    for key, value in merged.items():
        if key in b and not isinstance(b[key], dict):
            assert value == b[key]
        elif key not in b:
            assert value == a[key]
