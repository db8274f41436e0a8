"""The types of single values in `model.yaml`: visible text, plain names, columns, numbers."""

import unicodedata
from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tasks.shared.rules.model.mistakes import KeyPath
from tasks.shared.rules.model.strict_record import validation_error

_RESERVED_COLUMN = "_bucket"


def _one_line(text: str) -> str:
    """Refuse blank text, and text with invisible characters."""
    if not text or text != text.strip():
        raise validation_error("is empty, or begins or ends with a space")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in text):
        raise validation_error("holds a newline or an invisible character", "Take it out.")
    return text


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
    if text == _RESERVED_COLUMN:
        raise validation_error(f"is kept for the lake's own column {_RESERVED_COLUMN}", "Rename the column.")
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
Name = Annotated[str, AfterValidator(_name)]
Dataset = Annotated[Name, AfterValidator(_dataset)]
Column = Annotated[OneLineText, AfterValidator(_column)]
Parameter = Annotated[int | float | str | bool, BeforeValidator(_value)]
Number = Annotated[int | float, BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0.0001, le=1)]
