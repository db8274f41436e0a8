"""From a terminal: a page is drawn by hand, and what goes wrong is said in one line."""

from datetime import datetime
from pathlib import Path

import pytest

from local.processes import StackError
from ratchet import dashboard
from tasks.shared.records import Drawn
from tasks.shared.rules.refusal import Refusal


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer for the stack, and return the models that are drawn."""
    found: list[str] = []

    def draw(world: str, model: str, now: datetime) -> Drawn:
        if model == "none":
            raise Refusal("there is no such model", where="models/", value=model)
        found.append(f"{model} in {world}")
        return Drawn(model=model, headline="Version 2 serves.", path=Path("/pages") / f"{model}.html", url="")

    monkeypatch.setattr(dashboard, "use", lambda: None)
    monkeypatch.setattr(dashboard, "open_environment", lambda name: name)
    monkeypatch.setattr(dashboard, "known_models", lambda _: ("churn", "price"))
    monkeypatch.setattr(dashboard, "draw", draw)
    return found


def test_a_model_or_all_are_drawn_and_their_places_printed(
    drawn: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dashboard.main(["churn", "--environment", "staging"]) == 0
    assert dashboard.main([]) == 0
    assert drawn == ["churn in staging", "churn in local", "price in local"]
    said = capsys.readouterr().out
    assert "Version 2 serves." in said and "/pages/churn.html" in said and "not served in this environment" in said


def test_what_goes_wrong_is_said(
    drawn: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dashboard.main(["none"]) == 1
    assert "error: models/: there is no such model" in capsys.readouterr().err

    def down() -> None:
        raise StackError("the stack does not run; start it with: make up")

    monkeypatch.setattr(dashboard, "use", down)
    assert dashboard.main(["churn"]) == 1
    assert "make up" in capsys.readouterr().err


def test_the_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dashboard.main(["--help"])
    assert ended.value.code == 0 and "Draw the page about a model" in capsys.readouterr().out
