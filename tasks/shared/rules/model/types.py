"""The types of single values in `model.yaml`: text that an eye can trust, plain names, columns, numbers."""

import unicodedata
from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tasks.shared.rules.model.mistakes import KeyPath
from tasks.shared.rules.model.strict_record import rule

__all__ = ["Column", "Dataset", "Line", "Name", "Number", "Parameter", "Problems", "Share"]

_RESERVED = "_bucket"


def _one_line(text: str) -> str:
    """Refuse text that is blank, or that an eye cannot tell from other text."""
    if not text or text != text.strip():
        raise rule("is empty, or begins or ends with a space")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in text):
        raise rule("holds a newline or an invisible character", "Take it out.")
    return text


def _name(text: str) -> str:
    """Refuse what could not be part of a file name, a registry name and an address alike."""
    plain = text.isascii() and text.replace("_", "").replace("-", "").isalnum() and text == text.lower()
    apart = all(part for part in text.replace("_", "-").split("-"))
    if not (plain and apart and text[0].isalpha() and len(text) <= 63):
        raise rule("is not a plain name", "Write a small letter, then up to 62 of: a to z, 0 to 9, - and _.")
    return text


def _dataset(text: str) -> str:
    if len(text) > 51:
        raise rule("is too long for a table", "Write at most 51 letters: the lake adds -quarantine and -predictions.")
    return text


def _column(text: str) -> str:
    if text == _RESERVED:
        raise rule(f"is kept for the lake's own column {_RESERVED}", "Rename the column.")
    return text


def _value(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise rule("must be a number, text, true or false")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise rule("must be a number", "Take the quotes off." if isinstance(value, str) else "")
    return value


Problems: TypeAlias = Iterator[tuple[KeyPath, PydanticCustomError]]
"""What is wrong with a record, each at its path below the record."""

Line = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_name)]
Dataset = Annotated[Name, AfterValidator(_dataset)]
Column = Annotated[Line, AfterValidator(_column)]
Parameter = Annotated[int | float | str | bool, BeforeValidator(_value)]
Number = Annotated[int | float, BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0.0001, le=1)]
