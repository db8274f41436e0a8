"""Who starts a run is checked by every flow: its order, or the policy for a name that nobody proved."""

import ast
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from deployments.flow_runs import is_ended, wait_for_run
from local.stack import Stack
from tasks.shared.actions import FLOW_ACTIONS
from tests.checkout import ROOT
from tests.fixtures.office import WORDS
from tests.fixtures.support import customers, outcome, run
from tests.structure import decorated_functions

WITHOUT_ORDERS = {"notify", "auto_retrain"}
"""Flows that do only what the ledger already says, whoever starts them."""


def test_every_flow_checks_who_starts_it_by_its_own_action() -> None:
    checked = {}
    for path in sorted((ROOT / "flows").glob("*.py")):
        for flow in decorated_functions(ast.parse(path.read_text()), "flow"):
            calls = [each for each in ast.walk(flow) if isinstance(each, ast.Call)]
            named = [
                ast.literal_eval(each.args[0])
                for each in calls
                if isinstance(each.func, ast.Name) and each.func.id == "authorize_run"
            ]
            assert bool(named) == ("order" in {argument.arg for argument in flow.args.args}), flow.name
            checked[flow.name] = named
    assert {name for name, named in checked.items() if not named} == WITHOUT_ORDERS
    assert {name: [name] for name in FLOW_ACTIONS} == {name: named for name, named in checked.items() if named}


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_a_person_ordered_is_theirs_and_its_order_starts_no_other(
    stack: Stack, team_checkout: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    customers()[5000:5200].to_csv(rows, index=False)  # other tests ingest the first ones of this model
    command = [sys.executable, "-m", "ratchet", "accounts", "add", "orla@example.com", "--role", "approver"]
    subprocess.run(command, input=f"{WORDS}\n", text=True, cwd=team_checkout, check=True, timeout=300)
    with httpx.Client(base_url=stack.url("gateway"), timeout=120) as program:
        who = {"name": "orla@example.com", "password": WORDS}
        header = {"authorization": f"Bearer {program.post('/api/sign-in', json=who).json()['token']}"}
        sent = {
            "deployment": "ingest/ingest", "parameters": {"model": "signed", "source": str(rows)}, "reason": "new rows",
        }  # fmt: skip
        started = program.post("/api/actions/runs", json=sent, headers=header)
        assert started.status_code == 200, started.text
    done = wait_for_run(UUID(started.json()["run"]), until=is_ended, seconds=240)
    assert done.state is not None
    assert done.state.is_completed(), done.state.message
    given = dict(done.parameters)
    again = run("ingest/ingest", **given)
    assert "the order was used already" in outcome(again)
    edited = run("ingest/ingest", **{**given, "source": str(tmp_path)})
    assert "a parameter is not the one that was ordered" in outcome(edited)
