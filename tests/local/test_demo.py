"""The approval step of `make demo APPROVE=ask`: a decision is typed in full and never guessed."""

import pytest

from local.demo import parse_typed_decision

LINES = {
    "yes with a reason": ("yes Max it is better", (True, "Max", "it is better")),
    "no with a reason": ("no Max more data first", (False, "Max", "more data first")),
    "a name of several words": ('yes "Max Muster" it is better', (True, "Max Muster", "it is better")),
    "no reason: the ledger's rules refuse it": ("yes Max", (True, "Max", "")),
    "nothing": ("", None),
    "a blank line": ("   ", None),
    "yes alone": ("yes", None),
    "another word": ("maybe Max it is better", None),
    "a shout": ("YES Max it is better", None),
    "a quote that does not end": ('yes "Max it is better', None),
}


@pytest.mark.parametrize(("line", "decision"), LINES.values(), ids=LINES)
def test_only_yes_or_no_with_a_name_decides(line: str, decision: tuple[bool, str, str] | None) -> None:
    assert parse_typed_decision(line) == decision
