"""From strict YAML to a pydantic record: every mistake at once, each with line, key, value and remedy.

The records describe themselves (`describe`), so that messages and documentation name the keys that exist.
"""

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, PydanticUndefined

from tasks.shared.rules.model.mistakes import KeyPath, Mistake, Mistakes, key_name
from tasks.shared.rules.model.strict_yaml import Document, SourceLocation, read_yaml


class StrictRecord(BaseModel):
    """A frozen record that takes no unknown key, converts nothing, and knows no NaN or infinity."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


StrictRecordType = TypeVar("StrictRecordType", bound=StrictRecord)


@dataclass(frozen=True)
class KeyDescription:
    """One key that a record knows: its path (`*` is any name, `[]` any position), type, default, meaning."""

    path: KeyPath
    type: str
    default: str
    description: str

    @property
    def key(self) -> str:
        """The path as people write it: `evaluation.floors[].metric`, `search.<name>.low`."""
        parts = ("[]" if part == "[]" else f".{part}" for part in self.path)
        return "".join(parts).removeprefix(".").replace("*", "<name>")


def validation_error(problem: str, remedy: str = "") -> PydanticCustomError:
    """Return the error that a record's own validator raises; it becomes a mistake with this remedy."""
    return PydanticCustomError("rule", "{problem}", {"problem": problem, "remedy": remedy})


def raise_problems(problems: Iterable[tuple[KeyPath, PydanticCustomError]]) -> None:
    """Raise the problems, each at its path below the validator's field, as one ValidationError, if any."""
    details = [InitErrorDetails(type=error, loc=path, input=None) for path, error in problems]
    if details:
        raise ValidationError.from_exception_data("rules", details)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean `x`?" with the known word that is most like `word`, or the list of known ones."""
    names = {name.lower(): name for name in known}
    if close := difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6):
        return f"Did you mean `{names[close[0]]}`?"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"Known: {', '.join(list(names.values())[:12])}{more}." if names else ""


def parse_record(record: type[StrictRecordType], text: str | bytes, where: str) -> StrictRecordType:
    """Read YAML text into a record.

    Raises:
        Mistakes: with every mistake of the file; `where` is its name in the messages.
    """
    document = read_yaml(text, where)
    mistakes = list(document.mistakes)
    try:
        parsed = record.model_validate(document.value)
    except ValidationError as cause:
        explain = _ErrorTranslator(document, record_keys(record)).mistake
        told = {mistake.key for mistake in mistakes}
        for found in map(explain, cause.errors()):
            mistakes += [found] if found.key not in told else []
            told.add(found.key)
        raise Mistakes(where, mistakes) from cause
    if mistakes:
        raise Mistakes(where, mistakes)
    return parsed


_PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "needs at least {min_length} entries, not {actual_length}",
}


class _ErrorTranslator:
    """Turns pydantic's errors into mistakes that name line, key, value and remedy."""

    def __init__(self, document: Document, keys: Sequence[KeyDescription]) -> None:
        self.document, self.keys = document, keys

    def mistake(self, error: ErrorDetails) -> Mistake:
        path = tuple(part for part in error["loc"] if part != "[key]" and not str(part).startswith("<union "))
        place = self.document.places.get(path, SourceLocation(0))
        if error["loc"][-1:] == ("[key]",):
            place = SourceLocation(place.line)  # the name is at fault, not its value
        template, context = _PROBLEMS.get(error["type"]), error.get("ctx", {})
        problem = template.format(**context) if template else error["msg"]
        remedy = context.get("remedy", "") or self._remedy(error["type"], path, place, context)
        return Mistake(place.line or self._line_above(path), key_name(path), problem, place.written, remedy)

    def _line_above(self, path: KeyPath) -> int:
        while path not in self.document.places:
            path = path[:-1]
        return self.document.places[path].line

    def _remedy(self, kind: str, path: KeyPath, place: SourceLocation, context: Mapping[str, Any]) -> str:
        if kind == "extra_forbidden":
            return self._instead(path)
        if kind == "missing":
            return next((f"Add it: {key.description}." for key in self.keys if _path_matches(key.path, path)), "")
        if kind == "literal_error":
            return did_you_mean(place.written, re.findall(r"'([^']*)'", str(context["expected"])))
        if kind == "string_type":
            return f'Quote it: "{place.written}".' if place.written else "Write text."
        return _number_remedy(kind, place.written, context)

    def _instead(self, path: KeyPath) -> str:
        """Return what to write in place of an unknown key: the key most like it, or where it belongs."""
        here = [str(key.path[-1]) for key in self.keys if _path_matches(key.path[:-1], path[:-1])]
        elsewhere = [key.key for key in self.keys if key.path[-1] == path[-1]]
        if elsewhere and not difflib.get_close_matches(str(path[-1]), here):
            return f"It belongs under `{elsewhere[0].rpartition('.')[0] or 'the first level'}`."
        return did_you_mean(str(path[-1]), here)


def _path_matches(pattern: KeyPath, path: KeyPath) -> bool:
    return len(pattern) == len(path) and all(a in ("*", "[]", b) for a, b in zip(pattern, path, strict=True))


def _number_remedy(kind: str, written: str, context: Mapping[str, Any]) -> str:
    if kind in {"int_type", "float_type"}:
        return "Take the quotes off." if re.fullmatch(r"[\"'][-+0-9.eE]+[\"']", written) else "Write a number."
    limit = context.get("le", context.get("lt"))
    return percent_hint(float(written)) if limit == 1 and re.fullmatch(r"[0-9.]+", written) else ""


def percent_hint(value: float) -> str:
    """Return "It runs from 0 to 1: 80 % is 0.8." for a value that looks like a percentage, else ""."""
    return f"It runs from 0 to 1: {value:g} % is {value / 100:g}." if 1 < value <= 100 else ""


def record_keys(record: type[BaseModel], above: KeyPath = ()) -> tuple[KeyDescription, ...]:
    """Return every key that the record knows, in order, each followed by those below it."""
    return tuple(_describe(record, above))


def _describe(record: type[BaseModel], above: KeyPath) -> Iterator[KeyDescription]:
    for name, field in record.model_fields.items():
        path, default = (*above, name), field.get_default(call_default_factory=True, validated_data={})
        shown = "required" if default is PydanticUndefined else _default_text(default)
        yield KeyDescription(path, type_text(field.annotation), shown, field.description or "")
        for below, inner in _records(field.annotation, path):
            yield from record_keys(inner, below)


def _records(annotation: Any, path: KeyPath) -> Iterator[tuple[KeyPath, type[BaseModel]]]:
    """Yield the records that stand in an annotation, with the path at which each stands."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield path, annotation
        return
    arguments = [part for part in get_args(annotation) if part is not Ellipsis]
    if get_origin(annotation) is Annotated:
        yield from _records(arguments[0], path)
    elif get_origin(annotation) in {Union, types.UnionType}:
        for part in arguments:
            yield from _records(part, path)
    elif get_origin(annotation) in {dict, tuple}:
        yield from _records(arguments[-1], (*path, "*" if get_origin(annotation) is dict else "[]"))


def _default_text(default: object) -> str:
    if isinstance(default, BaseModel):
        return "as below"
    if default is None:
        return "none"
    if isinstance(default, tuple) and default:
        return ", ".join(map(_default_text, default))
    if isinstance(default, tuple | dict):
        return "empty" if not default else str(default)
    return str(default).lower() if isinstance(default, bool) else str(default)


def type_text(annotation: Any) -> str:
    """Return an annotation in plain words: "list of text", "one of binary, multiclass, regression"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in {Union, types.UnionType}:
        words = [type_text(part) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(words)).replace("whole number or number", "number")
    if origin is tuple:
        return f"list of {type_text(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_text(arguments[1])}"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return plain.get(annotation, "mapping")
