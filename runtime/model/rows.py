"""Rows that a person hands to a model, as the columns it was trained on; what does not fit is named by row.

What the text of a table means is the same here as where a model is trained: both ask `delimiter_of` and `shortest`.
"""

import codecs
import csv
import difflib
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import orjson

from contracts.errors import InvalidInput
from runtime.engine.facts import Column, Facts
from runtime.engine.ragged import ANY_LENGTH, Ragged

Columns = dict[str, np.ndarray | Ragged]

TOLD = 10
"""Categories that one answer names."""

LONGEST_WORD = 100
"""Letters by which the nearest category is looked for."""

DELIMITERS = ",;\t|"


def delimiter_of(header: str) -> str:
    """What separates the cells of a CSV file, by its first line."""
    counts = {mark: header.count(mark) for mark in DELIMITERS}
    return max(DELIMITERS, key=lambda mark: counts[mark])


def shortest(value: float) -> str:
    """`1`, `1.0` and `01` are one label."""
    return str(int(value)) if value.is_integer() else repr(value)


def parse(text: str, form: str) -> Any:
    """Plain rows from the text of a file; `form` is csv, json, jsonl, or nothing when it is to be seen."""
    first = text.lstrip()[:1]
    if form not in ("csv", "json", "jsonl"):
        form = "json" if first in ("[", "{") else "csv"
    if form == "csv":
        return _csv(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if first != "[" or form == "jsonl":
            return _lines(text)
        raise InvalidInput(f"the rows are not JSON: {error}.", cure="Mend the JSON there.") from None


def text_of(content: bytes, name: str) -> str:
    """The text of a file of rows; raises `InvalidInput` for what is no text, and for another encoding."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidInput(f"{name} is UTF-16.", cure="Save it as UTF-8.")
    if b"\0" in content:
        message = f"{name} is neither CSV nor JSON: it holds a zero byte at {content.index(0)}."
        raise InvalidInput(message, cure="Write the rows as text: CSV, JSON or JSON Lines.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"line {line} of {name} is not UTF-8: byte {content[error.start]:#04x}."
        raise InvalidInput(message, cure="Save the file as UTF-8.") from None


def columns_of(given: Any, facts: Facts, inputs: Sequence[str]) -> Columns:
    """Columns for a model: from lists of numbers, from objects by name, or from columns; raises `InvalidInput`."""
    if hasattr(given, "to_dict"):
        given = given.to_dict("records")
    if isinstance(given, Mapping):
        if _names_features(given, facts, 1):
            return _by_name(_apart(given), facts, inputs)
        if not all(name in given for name in inputs) or _names_features(given, facts, 0):
            return _by_name([given], facts, inputs)
        columns = {name: _stacked(list(given[name]), name, facts.columns[name]) for name in inputs}
        _refuse_uneven({name: len(column) for name, column in columns.items()})
        return columns
    rows = list(given)
    if not rows:
        raise InvalidInput("there are no rows.", cure="Give one row or more.")
    if isinstance(rows[0], Mapping):
        return _by_name(rows, facts, inputs)
    if tuple(inputs) != ("x",):
        raise InvalidInput("this model takes several columns.", cure=f"Give objects with {', '.join(inputs)}.")
    names = dict.fromkeys(name.partition("=")[0] for name in facts.features)
    instead = f", or objects with {_some(list(names))}" if _words(facts.features) else ""
    return {"x": _stacked(rows, "x", facts.columns["x"], instead)}


def _some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:TOLD]) + (f" and {len(names) - TOLD} more" if len(names) > TOLD else "")


def _by_name(rows: Sequence[Any], facts: Facts, inputs: Sequence[str]) -> Columns:
    whole = all(isinstance(row, Mapping) and all(name in row for name in inputs) for row in rows)
    if whole and not any(_names_features(row, facts, 0) for row in rows):
        return {name: _stacked([row[name] for row in rows], name, facts.columns[name]) for name in inputs}
    if tuple(inputs) != ("x",) or not facts.features:
        raise InvalidInput("rows lack a column.", cure=f"Give objects with {', '.join(inputs)}.")
    words = _words(facts.features)
    features, refused = [], list[InvalidInput]()
    for at, row in enumerate(rows, 1):
        try:
            features.append(_features(row, at, facts.features, words))
        except InvalidInput as error:
            refused.append(error)
    if len(refused) > 1:
        message = "; ".join(error.message.rstrip(".") for error in refused[:TOLD])
        more = f"; and {len(refused) - TOLD} more rows" if len(refused) > TOLD else ""
        cures = " ".join(dict.fromkeys(error.cure for error in refused[:TOLD]))
        raise InvalidInput(f"{message}{more}.", cure=cures)
    if refused:
        raise refused[0]
    return {"x": _stacked(features, "x", facts.columns["x"])}


def _names_features(given: Any, facts: Facts, dimensions: int) -> bool:
    """Whether every feature stands under its own name, as a value (no dimension) or a list of values (one).

    A table may have a column called `x` like the column that holds all features: then the others stand beside it.
    """
    names = [name if name in given else name.partition("=")[0] for name in facts.features or ()]
    if not names or not all(name in given for name in names):
        return False
    try:
        return all(np.ndim(given[name]) == dimensions for name in names)
    except ValueError:  # lists of different lengths
        return False


def _apart(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns of values as a row for each of their places."""
    columns = {name: list(column) for name, column in given.items() if np.ndim(column) == 1}
    _refuse_uneven({name: len(column) for name, column in columns.items()})
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _refuse_uneven(counts: Mapping[str, int]) -> None:
    if len(set(counts.values())) != 1:
        message = f"the columns have different lengths: {dict(counts)}."
        raise InvalidInput(message, cure="Give one value per row in each.")


def _words(features: Sequence[str]) -> dict[str, set[str]]:
    """The categories that training has seen in each column of words, which is a feature for each of them."""
    words: dict[str, set[str]] = {}
    for name in features:
        base, equals, word = name.partition("=")
        if equals:
            words.setdefault(base, set()).add(word)
    return words


def _features(row: Any, at: int, features: Sequence[str], words: Mapping[str, set[str]]) -> list[float]:
    """The features of a row; `colour=red` is whether its column `colour` says red."""
    values, said = list[float](), dict[str, str]()
    for name in features:
        base, _, word = name.partition("=")
        if isinstance(row, Mapping) and name in row:
            _refuse_gap(row[name], at, name)
            number = _float(row[name])
            if number is None or not math.isfinite(number):
                raise InvalidInput(f"row {at}: {name} is {row[name]!r}.", cure="Give a finite number.")
            values.append(number)
        elif isinstance(row, Mapping) and word and base in row:
            if base not in said:
                said[base] = _category(row[base], at, base, words[base])
            values.append(float(said[base] == word))
        else:
            raise InvalidInput(f"row {at} has no {base if word else name!r}.", cure="Name the columns as in training.")
    return values


def _category(cell: Any, at: int, name: str, words: set[str]) -> str:
    """What a cell is called as a category, as in training: `1`, `1.0` and `01` are one."""
    _refuse_gap(cell, at, name)
    said = str(cell).strip()
    with suppress(TypeError, ValueError, OverflowError):
        said = said if "_" in said else shortest(float(said if isinstance(cell, str) else cell))
    if said not in words:
        # Some of the categories that there are, the nearest before all others.
        near = difflib.get_close_matches(said[:LONGEST_WORD], sorted(words), 1)
        some = list(dict.fromkeys([*near, *sorted(words)]))
        more = f" and {len(some) - TOLD} more" if len(some) > TOLD else ""
        cure = f"It has seen {', '.join(map(repr, some[:TOLD]))}{more}."
        raise InvalidInput(f"row {at}: {name} is {cell!r}, which training has never seen.", cure=cure)
    return said


def _refuse_gap(cell: Any, at: int, name: str) -> None:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        cure = "Fill it or leave the row out: the model was trained on whole rows."
        raise InvalidInput(f"row {at} has no value in {name!r}.", cure=cure)


def _float(value: Any) -> float | None:
    """The value as a number; None when it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def is_ragged(column: Column) -> bool:
    """Whether the rows of a column have any length."""
    return column.shape[:1] == (ANY_LENGTH,)


def _stacked(rows: Sequence[Any], name: str, column: Column, instead: str = "") -> np.ndarray | Ragged:
    if is_ragged(column):
        return _of_any_length(rows, name, column)
    wanted, width = np.dtype(column.dtype), math.prod(column.shape)
    stacked = np.empty((len(rows), *column.shape), wanted)
    for at, row in enumerate(rows, 1):
        values = _numbers(row, at, name, wanted, instead).reshape(-1)
        if values.size != width:
            message = f"row {at}: {name} has {values.size} values, the model takes {width}."
            raise InvalidInput(message, cure=f"Give rows of the shape {list(column.shape)}{instead}.")
        stacked[at - 1] = values.reshape(column.shape)
    return stacked


def _of_any_length(rows: Sequence[Any], name: str, column: Column) -> Ragged:
    """Rows of any lengths as one ragged column; text is read as its bytes where the model reads bytes."""
    wanted, behind = np.dtype(column.dtype), column.shape[1:]
    ragged = []
    each = f"values of the shape {list(behind)}" if behind else "values"
    for at, row in enumerate(rows, 1):
        is_text = isinstance(row, str) and wanted == np.uint8 and not behind
        values = _numbers(list(row.encode()) if is_text else row, at, name, wanted)
        if values.size == 0:
            values = values.reshape(0, *behind)
        if values.ndim == 0 or values.shape[1:] != behind:
            message = f"row {at}: {name} has the shape {list(values.shape)}, the model takes any number of {each}."
            raise InvalidInput(message, cure="Give a list for each row, as in training.")
        ragged.append(values.astype(wanted))
    return Ragged.of(ragged)


def _numbers(row: Any, at: int, name: str, wanted: np.dtype[Any], instead: str = "") -> np.ndarray:
    """A row as finite numbers: floats in full precision, all others as the column has them."""
    try:
        values = np.asarray(row, dtype=np.float64 if wanted.kind == "f" else wanted)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"row {at}: {name} is not all numbers that fit.", cure=f"Give numbers{instead}.") from None
    if not np.isfinite(values).all():
        raise InvalidInput(f"row {at}: {name} holds a value that is not finite.", cure="Give finite numbers.")
    return values


def _csv(text: str) -> list[Any]:
    """Lists of numbers, or objects when the first line names the columns."""
    delimiter = delimiter_of(text.lstrip("\r\n").partition("\n")[0])
    try:
        lines = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except csv.Error as error:
        raise InvalidInput(f"the rows are no CSV: {error}.", cure="Check the quotes and the ends of lines.") from None
    if lines and any(_float(cell) is None for cell in lines[0]):
        head = [cell.strip() for cell in lines[0]]
        for at, row in enumerate(lines[1:], 1):
            if len(row) != len(head):
                raise InvalidInput(f"row {at} has {len(row)} cells, the header {len(head)}.", cure="Mend the row.")
        return [dict(zip(head, row, strict=True)) for row in lines[1:]]
    return lines


def _lines(text: str) -> list[Any]:
    rows = []
    for at, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                raise InvalidInput(f"line {at} is not JSON: {error}.", cure="Write one row per line.") from None
    return rows
