import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.errors import UserError
from steadyspike.train.params import MOST_VALUES, merge, read_params, read_yaml

REPOSITORY = Path(__file__).parents[2]
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


def test_defaults_may_be_missing(path: Path) -> None:
    path.write_text("experiments: {a: {x: 1}}")
    assert read_params(path) == {"a": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("5.0e-4", 5e-4),
        ("-1E3", -1000.0),
        ("1.", 1.0),
        ("10", 10),
        ("-3", -3),
        ("e3", "e3"),
        ("'5e-4'", "5e-4"),
        ("1e", "1e"),
        ("true", True),
        ("null", None),
        (".inf", float("inf")),
    ],
)
def test_numbers_are_those_of_yaml_1_2(path: Path, text: str, value: Any) -> None:
    path.write_text(f"experiments: {{a: {{x: {text}}}}}")
    read = read_params(path)["a"]["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected the keys 'defaults' and 'experiments', both mappings"),
        ("[1, 2]", "expected the keys"),
        ("defaults: {}", "expected the keys"),
        ("experiments: [a]", "expected the keys"),
        ("experiments: {}\nextra: 1", "extra: unknown key, expected 'defaults' or 'experiments'"),
        ("experiments: {}\n1: 1", "1: unknown key"),
        ("experiments: {}\ndefaults: 0", "defaults: expected a mapping, got 0"),
        ("experiments: {}\ndefaults: []", r"defaults: expected a mapping, got \[\]"),
        ("experiments: {a: 0}", "experiments.a: expected a mapping, got 0"),
        ("experiments: {a: false}", "experiments.a: expected a mapping, got False"),
        ("experiments: {a: [b]}", r"experiments.a: expected a mapping, got \['b'\]"),
        ("experiments: {a/b: {}}", "experiments.a/b: a name is made of letters"),
        ("experiments: {'..': {}}", r"experiments\.\.\.: a name"),
        ("experiments: {'.a': {}}", "a name"),
        ("experiments: {'-a': {}}", "a name"),
        ("experiments: {'': {}}", "a name"),
        ("experiments: {'a b': {}}", "a name"),
        ('experiments: {"a\\n": {}}', "a name"),
        ("experiments: {ö: {}}", "a name"),
        ("experiments: {1: {}}", "experiments.1: a name"),
        ("experiments: {a: {}, a: {}}", "line 1: the key 'a' is given twice"),
        ("experiments:\n  a:\n    x: 1\n    y: 2\n    x: 3", "line 5: the key 'x' is given twice"),
        ("experiments: {a: 'b}", "no valid YAML"),
        ("a: b: c", "no valid YAML"),
        ("\0", "no valid YAML"),
        ("experiments: !!map a", "no valid YAML"),
        ("experiments: {a: {x: 2024-13-45}}", "line 1: '2024-13-45' is no timestamp"),
        ("experiments: {a: {x: !!int y}}", "line 1: 'y' is no int"),
        ("experiments: {a: {x: !!bool y}}", "line 1: 'y' is no bool"),
        ("experiments: {a: {x: !!timestamp y}}", "line 1: 'y' is no timestamp"),
        ("experiments: {a: {x: !!float y}}", "line 1: 'y' is no float"),
        ("experiments: {a: {x: %s}}" % ("9" * 5000), "line 1: '9+[.]{3}9+' is no int"),
        ("experiments: {a: {x: 0x%s}}" % ("f" * 5000), "line 1: '0xf+[.]{3}f+' is no int"),
        ("experiments: {a: {? [1] : 2}}", "no valid YAML"),
        ("!!python/object/apply:os.getcwd []", "no valid YAML"),
        ("experiments: {a: *b}", "no valid YAML"),
        ("experiments: &a {b: *a}", "line 1: an alias stands for what it is part of"),
        ("experiments: {a: &a [1, *a]}", "line 1: an alias stands for what it is part of"),
        ("experiments: {%s: {}}" % ("a" * 101), "a name"),
        ("experiments: {a: {x: 1:%s1}}" % ("1:" * 5000), "line 1: '1:1.*' is no int"),
        ("experiments: {a: {x: 1:%s1.0}}" % ("1:" * 5000), "line 1: '1:1.*' is no float"),
        ("#" * (1 << 20) + "\nexperiments: {}", "too large; expected at most 1,048,576 bytes"),
        (f"experiments: {{a: {'[' * 20}1{']' * 20}}}", "no valid YAML: nested too deep"),
        ("[" * 50_000, "no valid YAML: nested too deep"),
        ("{a: " * 2_000, "no valid YAML: nested too deep"),
        ("- " * 5_000, "no valid YAML: nested too deep"),
    ],
)
def test_what_is_no_params_file_is_told(path: Path, text: str, told: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError, match=rf"(?s)^{path}: .*{told}") as raised:
        read_params(path)
    assert len(str(raised.value)) < 1000


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: not found"):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_params(tmp_path)
    (tmp_path / "latin1").write_bytes(b"experiments: {a: {x: \xe4}}")
    with pytest.raises(UserError, match="latin1: cannot be read"):
        read_params(tmp_path / "latin1")


def bomb(levels: int, mapping: bool) -> str:
    """Aliases of aliases: 9 to the power of `levels` values in a few hundred bytes."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        aliases = [f"*a{level - 1}"] * 9
        items = [f"k{place}: {alias}" for place, alias in enumerate(aliases)]
        body = "{" + ", ".join(items) + "}" if mapping else "[" + ", ".join(aliases) + "]"
        lines.append(f"a{level}: &a{level} {body}")
    last = f"*a{levels - 1}"
    return "\n".join([*lines, f"defaults: {last}", f"experiments: {{a: {last}}}"])


@pytest.mark.parametrize("mapping", [True, False])
def test_a_bomb_of_aliases_is_refused_at_once(path: Path, mapping: bool) -> None:
    path.write_text(bomb(40, mapping))
    began = time.monotonic()
    with pytest.raises(UserError, match=f"aliases stand for more than {MOST_VALUES} values"):
        read_params(path)
    assert time.monotonic() - began < 2


def test_honest_aliases_may_stay(path: Path) -> None:
    path.write_text("defaults: {a: &a {x: 1}, b: *a}\nexperiments: {e: {c: *a}}")
    assert read_params(path) == {"e": {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}}}


@pytest.mark.parametrize("file", PARAMS, ids=lambda path: path.parent.name)
def test_the_repositorys_own_files_are_read_as_yaml_alone_would(file: Path) -> None:
    """But for floats without a point, which YAML 1.1 takes for text."""
    assert read_yaml(file) == yaml.safe_load(file.read_text())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
trees = st.dictionaries(st.sampled_from("abc"), st.integers() | st.none(), max_size=3)
for _ in range(2):
    trees = st.dictionaries(st.sampled_from("abc"), trees | st.integers(), max_size=3)


def read_or_refused(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        read = read_params(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    else:
        assert all(isinstance(overrides, dict) for overrides in read.values())


@given(st.text() | values.map(lambda value: str(yaml.safe_dump(value))))
def test_any_text_is_read_or_refused_in_words(path: Path, text: str) -> None:
    read_or_refused(path, text)


@given(st.dictionaries(st.sampled_from(["defaults", "experiments", "x"]), values))
def test_any_document_is_read_or_refused_in_words(path: Path, document: Any) -> None:
    read_or_refused(path, yaml.safe_dump(document))


@given(trees, trees)
def test_merging(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert merge(a, {}) == a
    assert merge({}, a) == a
    assert merge(a, a) == a
    before = repr((a, b))
    merged = merge(a, b)
    assert repr((a, b)) == before  # neither is changed
    assert merged.keys() == a.keys() | b.keys()
    for key, value in merged.items():
        if key in b and not isinstance(b[key], dict):
            assert value == b[key]
        elif key not in b:
            assert value == a[key]
