"""Reads a pickle of plain values and byte arrays without running anything that it names.

A pickle is a program for a small machine that may call whatever can be imported, set a memo of
any size, and build values whose hash or print never ends. Python's own machine is not asked: the
one below knows the few instructions that plain data need. It calls nothing (a name's call is only
recorded), takes only text and numbers for keys, and needs memory in proportion to the pickle.
"""

import pickletools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

#: Five times what CIFAR-100 has, the longest that is read here.
MOST_INSTRUCTIONS = 1_000_000


@dataclass(eq=False, repr=False, slots=True)
class Recorded:
    """A name of a pickle, or the result of calling one: its arguments, and what was set on it."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


class _Mark:
    """Where on the stack a group of values begins."""


_MARK = _Mark()
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_VALUES = (
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PlainUnpickler:
    """Reads a pickle's value; ``calls`` are all calls that it would have made, in order.

    Strings of Python 2 are bytes, as with ``pickle.load(..., encoding="bytes")``. Names other
    than ``names`` are refused; the object of a persistent id is the call of the name "".
    """

    def __init__(self, names: Collection[str]) -> None:
        self.names = names
        self.calls: list[Recorded] = []
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self, content: bytes) -> Any:
        """The value. Raises ValueError for anything but a whole pickle of plain values."""
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
                if count >= MOST_INSTRUCTIONS:
                    raise ValueError(f"it has more than {MOST_INSTRUCTIONS} instructions")
                self._step(opcode.name, argument)
        except (IndexError, KeyError, AttributeError, TypeError) as error:
            raise ValueError("its instructions make no sense") from error
        if len(self._stack) != 1:
            raise ValueError("its instructions leave no single value")
        return self._stack[0]

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        match name:
            case "PROTO" | "STOP":
                pass
            case _ if name in _TEXTS:
                stack.append(argument.encode("latin-1"))
            case _ if name in _VALUES:
                if isinstance(argument, int) and not -(2**63) <= argument < 2**64:
                    raise ValueError("it has a number of more than 64 bits")
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case _ if name in _TUPLES:
                stack[-_TUPLES[name] :] = [tuple(self._last(_TUPLES[name]))]
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._group()))
            case "LIST":
                stack.append(self._group())
            case "DICT":
                table: dict[Any, Any] = {}
                _fill(table, self._group())
                stack.append(table)
            case "APPEND":
                value = self._pop()
                self._list().append(value)
            case "APPENDS":
                values = self._group()
                self._list().extend(values)
            case "SETITEM":
                pair = self._last(2)
                del stack[-2:]
                _fill(self._table(), pair)
            case "SETITEMS":
                pairs = self._group()
                _fill(self._table(), pairs)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = self._last(1)[0]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                full = argument.replace(" ", ".")
                if full not in self.names:
                    raise ValueError(f"it names {full}")
                stack.append(Recorded(full))
            case "REDUCE":
                called, arguments = self._last(2)
                if not isinstance(called, Recorded) or not isinstance(arguments, tuple):
                    raise ValueError("it calls what is no name")
                self._call(2, called.name, arguments)
            case "BINPERSID":
                self._call(1, "", (self._last(1)[0],))
            case "BUILD":
                state = self._pop()
                made = self._last(1)[0]
                if not isinstance(made, Recorded):
                    raise ValueError("it sets the state of a plain value")
                made.state = state
            case _:
                raise ValueError(f"it has the instruction {name}")

    def _call(self, taken: int, name: str, arguments: tuple[Any, ...]) -> None:
        made = Recorded(name, arguments)
        self.calls.append(made)
        self._stack[-taken:] = [made]

    def _last(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        if len(values) < count or _MARK in values:
            raise IndexError
        return values

    def _pop(self) -> Any:
        value = self._last(1)[0]
        del self._stack[-1]
        return value

    def _group(self) -> list[Any]:
        """What was put on the stack since the last mark, taken off it."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _list(self) -> list[Any]:
        target = self._last(1)[0]
        if not isinstance(target, list):
            raise ValueError("it appends to what is no list")
        return target

    def _table(self) -> dict[Any, Any]:
        target = self._last(1)[0]
        if isinstance(target, Recorded):
            return target.items
        if not isinstance(target, dict):
            raise ValueError("it sets an item of what is no table")
        return target


def _fill(table: dict[Any, Any], pairs: list[Any]) -> None:
    keys, values = pairs[::2], pairs[1::2]
    # Whoever hashes or compares nested tuples may never come to an end.
    if not all(type(key) in (bytes, str, int) for key in keys):
        raise ValueError("it has a key that is neither text nor a number")
    table.update(zip(keys, values, strict=True))
