"""The command erase: it asks for the key, and refuses before anything is looked up."""

from tests.fixtures.command_line import ratchet


def test_the_command_needs_to_know_who_and_why_and_which_model() -> None:
    nobody, unknown = (
        ratchet("erase", "churn", "--key", "c1"),
        ratchet("erase", "chrun", "--by", "dora", "--reason", "request 17", "--key", "c1"),
    )
    assert (nobody.exit_code, unknown.exit_code) == (2, 1)
    assert "Missing option '--by'" in nobody.stderr
    assert "Did you mean 'churn'?" in unknown.stderr


def test_help_says_that_it_is_for_good() -> None:
    assert "for good" in ratchet("erase", "--help").stdout
