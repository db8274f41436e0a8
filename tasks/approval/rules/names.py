"""Names of people, and reasons: checked before they are recorded, and marked when nobody proved the name."""

from collections.abc import Callable

from blocks.records.identity import mixed_script_word, normalized_name
from runtime.foreign_text import refuse_hidden_characters, refuse_hidden_in_lines
from tasks.shared.rules.refusal import Refusal

NOT_AUTHENTICATED = "(not authenticated)"
"""What follows a name, wherever it is shown, when nobody proved it."""


def shown_name(name: str, *, authenticated: bool) -> str:
    """Return the name, marked when nobody proved it."""
    return name if authenticated else f"{name} {NOT_AUTHENTICATED}"


def check_person_name(name: str, where: str = "name") -> str:
    """Return the name with single spaces.

    Raises:
        Refusal: it has fewer than 2 letters, characters that nobody sees, or a word that mixes scripts.
    """
    _check_text("a name", name, 2, refuse_hidden_characters, where)
    if word := mixed_script_word(name):
        remedy = "Write each word of the name in the letters of one script."
        raise Refusal("the name mixes letters that look alike", where=where, value=word, remedy=remedy)
    return " ".join(name.split())


def check_reason(reason: str, where: str = "reason", minimum: int = 3) -> str:
    """Return the reason without outer spaces. Raises Refusal below `minimum` letters, and for hidden characters."""
    _check_text("a reason", reason, minimum, refuse_hidden_in_lines, where)
    return reason.strip()


def _check_text(what: str, text: str, minimum: int, refuse_hidden: Callable[[str], str], where: str) -> None:
    """Refuse a text that is too short, or that the record would show otherwise than it is."""
    if len(normalized_name(text)) < minimum:
        raise Refusal(f"needs {what} of {minimum} letters or more", where=where, value=text[:200])
    try:
        refuse_hidden(text)
    except ValueError as problem:
        raise Refusal(str(problem), where=where, value=text) from problem
