"""The types of single values in `model.yaml`: visible text, plain names, columns, numbers."""

from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from runtime.foreign_text import hidden_characters, refuse_hidden_in_lines
from tasks.shared.rules.model.mistakes import KeyPath
from tasks.shared.rules.model.strict_record import validation_error

_RESERVED_COLUMNS = {"_bucket", "_request_id", "_row", "_requested_at", "_model_version", "_truth"}
_RESERVED_PREFIXES = ("_ratchet_", "_hashed_", "_prediction")


def is_reserved_column(name: str) -> bool:
    """Return whether Ratchet adds columns of this name to rows: a source's column must not hide one of them."""
    return name.lower() in _RESERVED_COLUMNS or name.lower().startswith(_RESERVED_PREFIXES)


def _one_line(text: str) -> str:
    """Refuse blank text, and text with invisible characters."""
    if not text or text != text.strip():
        raise validation_error("is empty, or begins or ends with a space")
    if hidden_characters(text):
        raise validation_error("holds a newline or an invisible character", "Take it out.")
    return text


def _lines(text: str) -> str:
    """Refuse text of several lines that has invisible characters."""
    try:
        return refuse_hidden_in_lines(text)
    except ValueError:
        raise validation_error("holds an invisible character", "Take it out.") from None


def _name(text: str) -> str:
    """Refuse a name that is not valid in file names, registry names and addresses."""
    plain = text.isascii() and text.replace("_", "").replace("-", "").isalnum() and text == text.lower()
    apart = all(part for part in text.replace("_", "-").split("-"))
    if not (plain and apart and text[0].isalpha() and len(text) <= 63):
        raise validation_error(
            "is not a plain name", "Write a small letter, then up to 62 of: a to z, 0 to 9, - and _."
        )
    return text


def _dataset(text: str) -> str:
    if len(text) > 51:
        raise validation_error(
            "is too long for a table", "Write at most 51 letters: the lake adds -quarantine and -predictions."
        )
    return text


def _column(text: str) -> str:
    if is_reserved_column(text):
        raise validation_error("is kept for a column that Ratchet adds itself", "Rename the column in the source.")
    return text


def _value(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise validation_error("must be a number, text, true or false")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise validation_error("must be a number", "Take the quotes off." if isinstance(value, str) else "")
    return value


ProblemIterator: TypeAlias = Iterator[tuple[KeyPath, PydanticCustomError]]
"""What is wrong with a record, each at its path below the record."""

OneLineText = Annotated[str, AfterValidator(_one_line)]
Lines = Annotated[str, AfterValidator(_lines)]
Name = Annotated[str, AfterValidator(_name)]
Dataset = Annotated[Name, AfterValidator(_dataset)]
Column = Annotated[OneLineText, AfterValidator(_column)]
Parameter = Annotated[int | float | str | bool, BeforeValidator(_value)]
Number = Annotated[int | float, BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0.0001, le=1)]
