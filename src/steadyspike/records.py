"""Reads JSON and CSV files into pydantic models; a damaged file is one line for the user."""

import csv
import io
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from steadyspike.errors import UserError
from steadyspike.files import read_at_most

LARGEST = 1 << 22  # bytes; the largest results have some hundred thousand

R = TypeVar("R", bound=BaseModel)


def read_record(path: Path, kind: type[R], remedy: str | None = None) -> R:
    """A JSON file as a record.

    Raises:
        UserError: the file is missing or damaged; ``remedy`` is appended to the message.
    """
    content = _content(path, remedy)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise UserError(": ".join(filter(None, (f"{path}: {_first(error)}", remedy)))) from None


def read_rows(path: Path, kind: type[R], remedy: str | None = None) -> list[R]:
    """The rows of a CSV file, at least one, whose header has the fields of ``kind``.

    Raises:
        UserError: the file is missing (``remedy`` is appended) or damaged (names line and column).
    """
    content = _content(path, remedy)
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        missing = [name for name in kind.model_fields if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{path}: {missing[0]}: expected a column of this name")
        rows = [kind.model_validate(cells) for cells in reader]
    except ValidationError as error:
        raise UserError(f"{path}: line {reader.line_num}, {_first(error)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file: {error}") from None
    if not rows:
        raise UserError(f"{path}: expected at least one row below the header")
    return rows


def _content(path: Path, remedy: str | None) -> bytes:
    try:
        return read_at_most(path, LARGEST)
    except FileNotFoundError:
        raise UserError(": ".join(filter(None, (f"{path}: not found", remedy)))) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _first(error: ValidationError) -> str:
    """The first thing wrong, in one line that starts with its key."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return " ".join(": ".join(filter(None, (where, what))).split())
