"""Namespaces: a suffix of the model's name that separates the work of people and branches.

`churn--dana` is the model of `models/churn` in the namespace `dana`. Experiment, versions, endpoint, ledger lines,
tiers and limits use this name, so a namespace has its own. No other name has two hyphens in a row:
`EndpointName` refuses it.
"""

import re

from runtime.digests import text_digest
from tasks.shared.rules.refusal import Refusal

SEPARATOR = "--"
MAX_NAMESPACE_LENGTH = 24
"""How long a namespace may be."""
MAX_NAMESPACED_NAME_LENGTH = 51
"""How long model and namespace may be together: the lake adds `-predictions` and takes 63, as SageMaker does."""

_NAMESPACE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_HASHED = re.compile(r"(.*-)?[0-9a-f]{8}")
_HASH_LENGTH = 8


def base_name(name: str) -> str:
    """Return the name of the model's folder: `churn` of `churn--dana` and of `churn`."""
    return name.partition(SEPARATOR)[0]


def namespace_part(name: str) -> str:
    """Return the namespace, `dana` of `churn--dana`; "" of the shared model."""
    return name.partition(SEPARATOR)[2]


def in_namespace(name: str, namespace: str) -> str:
    """Return the name of the same model in a namespace; "" is the shared one. Raises Refusal as `check_name`."""
    return check_name(f"{base_name(name)}{SEPARATOR}{namespace}") if namespace else base_name(name)


def check_name(name: str) -> str:
    """Return the name of a model, in a namespace or not.

    Raises:
        Refusal: the part after `--` is not a valid namespace, or the whole name is too long.
    """
    base, separator, namespace = name.partition(SEPARATOR)
    if not separator:
        return name
    if not _NAMESPACE.fullmatch(namespace) or len(namespace) > MAX_NAMESPACE_LENGTH:
        rule = f"a small letter, then a to z, 0 to 9, single hyphens, at most {MAX_NAMESPACE_LENGTH}"
        form = f"Write {rule}: {base or 'churn'}--dana."
        raise Refusal("this is not a valid namespace", where=f"the model {name!r}", value=namespace, remedy=form)
    if len(name) > MAX_NAMESPACED_NAME_LENGTH:
        room = MAX_NAMESPACED_NAME_LENGTH - len(base) - len(SEPARATOR)
        remedy = f"Choose a namespace of at most {room} letters." if room > 0 else "Give the model a shorter name."
        raise Refusal(
            f"model and namespace are longer than {MAX_NAMESPACED_NAME_LENGTH} letters", value=name, remedy=remedy
        )
    return name


def to_namespace(text: str, name: str = "") -> str:
    """Return the namespace of a branch or a person, short enough for the model `name`: never empty, always valid.

    What is a namespace already stays as it is. Anything else is made one, with a hash of the whole text behind it: so
    `fix/a` and `fix-a` are two. What only looks as if it had such a hash gets one, too.
    """
    longest = min(MAX_NAMESPACE_LENGTH, MAX_NAMESPACED_NAME_LENGTH - len(base_name(name)) - len(SEPARATOR))
    if _NAMESPACE.fullmatch(text) and len(text) <= longest and not _HASHED.fullmatch(text):
        return text
    digest = text_digest(text, "surrogateescape")[:_HASH_LENGTH]
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    words = words if words[:1].isalpha() else f"b-{words}".strip("-")
    words = words[: max(1, longest - _HASH_LENGTH - 1)].rstrip("-")
    return f"{words}-{digest}"
