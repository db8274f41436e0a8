"""Requests and answers are held against botocore's own description of SageMaker, both ways."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from local.sagemaker.errors import ApiError, NotImplementedLocally, validation_error


@cache
def service_model(name: str = "sagemaker") -> Any:
    """Return botocore's model of a service."""
    return botocore.session.get_session().get_service_model(name)


def is_known_operation(operation: str) -> bool:
    """Whether AWS has an operation of that name."""
    return operation in service_model().operation_names


def parse_request(operation: str, body: bytes) -> dict[str, Any]:
    """Return a request's members, checked: types, required members, patterns, lengths, enumerations.

    Raises:
        Refused: as SageMaker's ValidationException, with every problem.
    """
    shape = service_model().operation_model(operation).input_shape
    try:
        given = json.loads(body or b"{}")
    except ValueError as cause:
        raise ApiError("SerializationException", f"the body of {operation} is no JSON: {cause}") from cause
    given = _convert_times(given, shape)
    if problems := _validation_problems(given, shape):
        plural = "s" if len(problems) > 1 else ""
        raise validation_error(f"{len(problems)} validation error{plural} detected: {'; '.join(problems)}")
    return dict(given)


def refuse_unsupported_members(operation: str, given: Mapping[str, Any], members: frozenset[str]) -> None:
    """Refuse a request with a member that is neither acted on nor recorded here, by its name."""
    for member, value in given.items():
        if member not in members and value not in (None, [], {}, False):
            raise NotImplementedLocally(f"{operation}.{member}")


def render_response(operation: str, content: Mapping[str, Any] | None) -> bytes:
    """Return the answer's JSON: what the operation's output has of `content`, and nothing else.

    Raises:
        Refused: InternalFailure when what is left is not what botocore expects: a mistake of ours.
    """
    shape = service_model().operation_model(operation).output_shape
    if shape is None:
        return b"{}"
    projected = keep_known_members(content or {}, shape)
    found = str(ParamValidator().validate(projected, shape).generate_report()).splitlines()
    if wrong := [line for line in found if not line.startswith("Missing required")]:  # ModelArtifacts, until it ends
        raise ApiError("InternalFailure", f"{operation}: {'; '.join(wrong)}", 500)
    return json.dumps(_to_json_values(projected)).encode()


def keep_known_members(content: Any, shape: Any) -> Any:
    """Return what a shape has of a content: members that it does not know are left out, and those of None."""
    if shape.type_name == "structure" and isinstance(content, Mapping):
        members = {name: content[name] for name in shape.members if content.get(name) is not None}
        return {name: keep_known_members(value, shape.members[name]) for name, value in members.items()}
    if shape.type_name == "list" and isinstance(content, list | tuple):
        return [keep_known_members(each, shape.member) for each in content]
    return content


def _convert_times(given: Any, shape: Any) -> Any:
    """Turn numbers where the shape wants a time into times, as botocore sends them."""
    if shape.type_name == "structure" and isinstance(given, dict):
        known = shape.members
        return {key: _convert_times(value, known[key]) if key in known else value for key, value in given.items()}
    if shape.type_name == "list" and isinstance(given, list):
        return [_convert_times(each, shape.member) for each in given]
    if shape.type_name == "timestamp" and isinstance(given, int | float):
        return datetime.fromtimestamp(given, UTC)
    return given


def _validation_problems(given: Any, shape: Any) -> list[str]:
    report = ParamValidator().validate(given, shape)
    if report.has_errors():
        return str(report.generate_report()).splitlines()
    return list(_constraints(given, shape, ""))


def _constraints(given: Any, shape: Any, where: str) -> Iterator[str]:
    """Yield what botocore leaves to the server: patterns, lengths, enumerations, upper bounds."""
    if shape.type_name == "structure":
        for name, value in given.items():
            yield from _constraints(value, shape.members[name], f"{where}.{name}".lstrip("."))
    elif shape.type_name == "list":
        yield from _bound_problems(len(given), shape, where, "length")
        for each in given:
            yield from _constraints(each, shape.member, f"{where}.member")
    elif shape.type_name == "map":
        yield from _bound_problems(len(given), shape, where, "length")
        for key, value in given.items():
            yield from _constraints(key, shape.key, f"{where}.key")
            yield from _constraints(value, shape.value, f"{where}.{key}")
    elif shape.type_name == "string":
        yield from _string_problems(given, shape, where)
    elif shape.type_name in ("integer", "long"):
        yield from _bound_problems(given, shape, where, "value")


def _string_problems(given: str, shape: Any, where: str) -> Iterator[str]:
    failed = f"Value '{given[:100]}' at '{where}' failed to satisfy constraint: Member must"
    if shape.enum and given not in shape.enum:
        yield f"{failed} satisfy enum value set: [{', '.join(shape.enum[:20])}, …]"
    pattern = shape.metadata.get("pattern")
    if pattern and (compiled := _compile_pattern(pattern)) and not compiled.fullmatch(given):
        yield f"{failed} satisfy regular expression pattern: {pattern}"
    yield from _bound_problems(len(given), shape, where, "length")


def _bound_problems(size: int, shape: Any, where: str, what: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if (least is not None and size < least) or (most is not None and size > most):
        yield f"{what} {size} at '{where}' failed to satisfy constraint: Member must be between {least} and {most}"


@cache
def _compile_pattern(pattern: str) -> "re.Pattern[str] | None":
    r"""Return the pattern for Python, or None for one of the few that only Java reads (`\p{L}`)."""
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:
        return None


def _to_json_values(content: Any) -> Any:
    if isinstance(content, datetime):
        return content.timestamp()
    if isinstance(content, Mapping):
        return {key: _to_json_values(value) for key, value in content.items()}
    return [_to_json_values(each) for each in content] if isinstance(content, list | tuple) else content
