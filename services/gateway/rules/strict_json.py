"""A strict JSON parser for untrusted input: it guesses nothing, and its use of stack, memory and time is bounded.

Python's own parser keeps the last of two equal keys, accepts NaN, and fails on a number with 5,000 digits or on
200,000 brackets.
"""

import json
import math
from collections import Counter
from typing import Any

from tasks.shared.rules.refusal import Refusal

MAX_DEPTH = 64
"""Maximum nesting depth."""
MAX_DIGITS = 20
"""Maximum length of an integer, sign included: 64 bits."""


def read_object(body: bytes) -> dict[str, Any]:
    """Parse `body` (UTF-8) and return its JSON object.

    Raises:
        Refusal: the body is not JSON, or is JSON that two parsers may read differently; the message says why.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_no_key_twice,
            parse_int=_whole_number,
            parse_float=_finite_number,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError as cause:
        raise _refusal(f"is not UTF-8 at byte {cause.start}") from cause
    except RecursionError as cause:
        raise _refusal(f"is nested deeper than {MAX_DEPTH} levels") from cause
    except ValueError as cause:
        raise _refusal(f"is not JSON: {cause}"[:200]) from cause
    if not isinstance(value, dict):
        raise _refusal("is not a JSON object")
    _check_depth(value)
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _refusal(f"has the key {key[:60]!r} twice")
    return values


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _refusal(f"has an integer of {len(text)} digits")
    return int(text)


def _finite_number(text: str) -> float:
    value = float(text) if len(text) <= 400 else math.inf
    if not math.isfinite(value):
        raise _refusal("has a number that is too large for a double")
    return value


def _no_constant(text: str) -> float:
    raise _refusal(f"has {text}, which is not JSON")


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [part for each in level for part in _parts(each)]
        if not level:
            return
    raise _refusal(f"is nested deeper than {MAX_DEPTH} levels")


def _parts(value: object) -> list[object]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in parts if isinstance(part, dict | list)]


def _refusal(problem: str) -> Refusal:
    return Refusal(problem, where="body")
