"""The command `dashboard`: it draws a page on demand, and reports an error in one line."""

from datetime import datetime
from pathlib import Path

import pytest

from local.processes import StackError
from tasks.shared.records import DashboardResult
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.command_line import ratchet


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the stack, and return the models that are drawn."""
    found: list[str] = []

    def draw(env: str, model: str, now: datetime) -> DashboardResult:
        if model == "none":
            raise Refusal("there is no such model", where="models/", value=model)
        found.append(f"{model} in {env}")
        return DashboardResult(model=model, headline="Version 2 serves.", path=Path("/pages") / f"{model}.html", url="")

    monkeypatch.setattr("ratchet.commands.models.running_environment", lambda name: name)
    monkeypatch.setattr("tasks.shared.models.known_models", lambda _: ("churn", "price"))
    monkeypatch.setattr("tasks.dashboard.drawing.write_dashboard", draw)
    return found


def test_a_model_or_all_are_drawn_and_their_places_printed(drawn: list[str]) -> None:
    one, all_there_are = ratchet("dashboard", "churn", "--environment", "aws"), ratchet("dashboard")
    assert one.exit_code == all_there_are.exit_code == 0
    assert drawn == ["churn in aws", "churn in local", "price in local"]
    said = one.stdout + all_there_are.stdout
    assert "Version 2 serves." in said and "/pages/churn.html" in said and "not served in this environment" in said


def test_what_goes_wrong_is_said(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = ratchet("dashboard", "none")
    assert unknown.exit_code == 1 and "error: models/: there is no such model" in unknown.stderr

    def down(environment: str) -> None:
        raise StackError("the stack does not run; start it with: make up")

    monkeypatch.setattr("ratchet.commands.models.running_environment", down)
    refused = ratchet("dashboard", "churn")
    assert refused.exit_code == 1 and "make up" in refused.stderr


def test_the_help_says_what_it_does() -> None:
    shown = ratchet("dashboard", "--help")
    assert shown.exit_code == 0 and "Render the dashboard of a model" in shown.stdout
