"""Validation of requests and responses against botocore's service model of SageMaker."""

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


def parse_request(operation: str, body: bytes) -> dict[str, Any]:
    """Parse a request and check types, required members, patterns, lengths and enumerations.

    Raises:
        ApiError: a ValidationException as of SageMaker, with all problems.
    """
    shape = service_model().operation_model(operation).input_shape
    try:
        content = json.loads(body or b"{}")
    except ValueError as cause:
        raise ApiError("SerializationException", f"the body of {operation} is not JSON: {cause}") from cause
    content = _convert_times(content, shape)
    if problems := _validation_problems(content, shape):
        plural = "s" if len(problems) > 1 else ""
        raise validation_error(f"{len(problems)} validation error{plural} detected: {'; '.join(problems)}")
    return dict(content)


def refuse_unsupported_members(operation: str, request: Mapping[str, Any], members: frozenset[str]) -> None:
    """Refuse a request with a member that is neither honoured nor recorded here; the error names it."""
    for member, value in request.items():
        if member not in members and value not in (None, [], {}, False):
            raise NotImplementedLocally(f"{operation}.{member}")


def render_response(operation: str, content: Mapping[str, Any] | None) -> bytes:
    """Return the response's JSON: only those members of `content` that the operation's output has.

    Raises:
        ApiError: InternalFailure when the result does not match botocore's model, which is a bug here.
    """
    shape = service_model().operation_model(operation).output_shape
    if shape is None:
        return b"{}"
    projected = keep_known_members(content or {}, shape)
    report = str(ParamValidator().validate(projected, shape).generate_report()).splitlines()
    # a running job has no ModelArtifacts yet, which botocore's model requires
    if problems := [line for line in report if not line.startswith("Missing required")]:
        raise ApiError("InternalFailure", f"{operation}: {'; '.join(problems)}", 500)
    return json.dumps(projected, default=datetime.timestamp).encode()


def keep_known_members(content: Any, shape: Any) -> Any:
    """Return the content without members that the shape does not have, and without None values."""
    if shape.type_name == "structure" and isinstance(content, Mapping):
        members = {name: content[name] for name in shape.members if content.get(name) is not None}
        return {name: keep_known_members(value, shape.members[name]) for name, value in members.items()}
    if shape.type_name == "list" and isinstance(content, list | tuple):
        return [keep_known_members(each, shape.member) for each in content]
    return content


def _convert_times(given: Any, shape: Any) -> Any:
    """Convert numbers to times where the shape has a timestamp; botocore sends them as numbers."""
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
    """Yield violations that botocore does not check: patterns, lengths, enumerations, upper bounds."""
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
