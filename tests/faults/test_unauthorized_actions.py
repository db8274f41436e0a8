"""Attacks on actions: whoever is not entitled, or proved by nobody, rolls back, waives, erases and starts nothing.

Each action is tried in each way: a run's parameters, the command line, the gateway's page and API, and by orders that
are used again, edited, forged, expired, or for something else. The environment requires authentication.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from blocks.approvals.chain import make_entry, record_from_entry, record_to_json, request_digest
from blocks.approvals.fake import FakeApprovals
from blocks.common.errors import Rejected
from blocks.common.gateway_settings import GatewaySettings
from blocks.common.trust import ApprovalSettings, RequiredApproval
from blocks.records.actions import Action, ActionOrder, ActionPolicy, ActionSettings, RollbackPolicy, RunPolicy
from blocks.records.alerts import AlertRecord
from blocks.records.approvals import Decision, Waiver
from blocks.records.deployments import Deployment
from blocks.records.identity import UNKNOWN_HISTORY
from blocks.records.people import Person
from runtime.keys import create_key, load_signer
from services.gateway.approvals_ui.tokens import Tokens
from tasks.approval.rules.actions import Act, Actor
from tasks.approval.rules.approval import check_deployable
from tasks.approval.rules.policy import ApprovalRequirements
from tasks.cleanup.erasure import authorize_erasure
from tasks.notification.delivery import acknowledge
from tasks.release.registry import way_to_roll_back
from tasks.release.rollback import check_rollback_target
from tasks.shared.actions import authorize, authorize_automatic, finish_order, order_act
from tasks.shared.models import load_model
from tasks.shared.rules.refusal import Refusal
from tasks.shared.waivers import check_waivers_valid
from tests.fakes.environment import NOW, World
from tests.fixtures.approval_requests import TRAINED, evidence, request_over
from tests.fixtures.office import Office, hidden

ALERT = "churn/local/model.drift.detected"
REASON = "the new version is slow"
CALLS: dict[Action, tuple[str, dict[str, Any]]] = {
    "rollback": ("runs", {"deployment": "rollback/rollback", "parameters": {"model": "churn", "to_version": "1"}}),
    "acknowledge": ("acknowledge", {"alert": ALERT, "note": "on it"}),
    "waive": ("waive", {"model": "churn", "gates": ["auc"], "until": (NOW + timedelta(days=3)).isoformat()}),
    "clean_up": ("runs", {"deployment": "collect_garbage/collect-garbage", "parameters": {"dry_run": False}}),
    "erase": ("orders", {"action": "erase", "model": "churn"}),
    "start": ("runs", {"deployment": "retrain/retrain", "parameters": {"model": "churn", "tier": "full"}}),
}
"""How a program asks the gateway for each action."""

ACTS: dict[Action, Act] = {
    "rollback": Act("rollback", "local", "churn", "rollback", parameters={"model": "churn", "to_version": "1"}),
    "acknowledge": Act("acknowledge", "local", "churn", ALERT),
    "waive": Act("waive", "local", "churn"),
    "clean_up": Act("clean_up", "local", "", "collect_garbage", parameters={"dry_run": False}),
    "erase": Act("erase", "local", "churn"),
    "start": Act("start", "local", "churn", "retrain", parameters={"model": "churn", "tier": "full"}),
}
WEEKLY = replace(
    ACTS["clean_up"],
    parameters={
        "environment": "local", "grace_days": 30.0, "dry_run": False, "idle_hours": 24.0, "idle_endpoints": "report",
        "order": "",
    },
    defaults=frozenset({"environment", "grace_days", "idle_hours", "idle_endpoints", "order"}),
)  # fmt: skip
"""The weekly cleanup as prefect.yaml declares it."""
EVERY_ACTION = pytest.mark.parametrize("action", get_args(Action))
EVERY_FORM = pytest.mark.parametrize("path", ["rollback", "acknowledge"])


@pytest.fixture
def env(tmp_path: Path) -> World:
    """An environment that requires authentication, with an open alert."""
    env = World.at(tmp_path)
    env.approval = ApprovalSettings(require_authentication=True)
    env.outbox().record_signal(
        AlertRecord("k1", ALERT, "model.drift.detected", "raised", "churn", "local", "warning", "ann", "moved", NOW)
    )
    return env


@pytest.fixture
def office(env: World, tmp_path: Path) -> Office:
    return Office.at(tmp_path, env)


def call(office: Office, action: Action, headers: dict[str, str]) -> httpx.Response:
    path, sent = CALLS[action]
    return office.client.post(f"/api/actions/{path}", json={"reason": REASON, **sent}, headers=headers)


def kinds(env: World) -> list[str]:
    return [link.kind for link in env.approvals().chain_entries() if link.kind != "refusal"]


def nothing_happened(office: Office) -> bool:
    done = [each.state for each in office.env.outbox().signals(ALERT)]
    return not office.starter.specs and kinds(office.env) == [] and done == ["raised"]


def ordered(env: World, act: Act, by: str = "max@example.com") -> str:
    """Return the id of an order that the gateway signed for a person who signed in."""
    actor = Actor(by, authenticated=True, roles=("approver",))
    return order_act(env, act, actor, reason=REASON, channel="gateway", now=NOW).order_id


def use(env: World, act: Act, order: str, used_by: str = "flow run 1", by: str = "max@example.com", **at: Any) -> Actor:
    return authorize(env, act, order=order, by=by, used_by=used_by, now=NOW + timedelta(**at))


@EVERY_ACTION
def test_who_signed_in_does_the_action_by_a_signed_order_in_their_name(office: Office, action: Action) -> None:
    done = call(office, action, office.token("max@example.com"))
    assert done.status_code == 200, done.text
    (link,) = [each for each in office.env.approvals().chain_entries() if each.kind in ("action", "waiver")]
    record: Any = record_from_entry(link)
    by = record.waived_by if action == "waive" else record.by
    assert (by, record.authenticated, record.roles, record.reason) == (
        "max@example.com", True, ("approver",), "on it" if action == "acknowledge" else REASON,
    )  # fmt: skip
    for spec in office.starter.specs.values():
        assert spec.parameters["order"] == done.json()["order"] == link.hash
        act = replace(ACTS[action], parameters=spec.parameters)
        assert use(office.env, act, link.hash).by == "max@example.com"


@EVERY_ACTION
def test_a_name_in_the_parameters_of_a_run_does_nothing(env: World, action: Action) -> None:
    with pytest.raises(Refusal, match=r"not authenticated.*/actions"):
        use(env, ACTS[action], order="")
    assert "refusal" in [link.kind for link in env.approvals().chain_entries()]


@EVERY_ACTION
def test_the_command_line_tells_the_way_and_does_nothing(env: World, action: Action) -> None:
    with pytest.raises(Refusal, match=r"not authenticated.*personal token"):
        order_act(env, ACTS[action], Actor("max@example.com"), reason=REASON, channel="terminal", now=NOW)
    assert kinds(env) == []


def test_an_acknowledgement_from_the_command_line_is_refused(env: World) -> None:
    with pytest.raises(Refusal, match="not authenticated"):
        acknowledge(env, ALERT, Actor("max@example.com"), "on it", "terminal", NOW)
    assert len(env.outbox().signals(ALERT)) == 1


def without_session(office: Office) -> dict[str, str]:
    return {}


def viewer(office: Office) -> dict[str, str]:
    return office.token("vic@example.com", "viewer")


def excluded_person(office: Office) -> dict[str, str]:
    rule = {"excluded": ("Ann Lee",)}
    policies: dict[str, Any] = {name: ActionPolicy(**rule) for name in ("acknowledge", "waive", "erase")}
    policies |= {name: RunPolicy(**rule) for name in ("start", "clean_up")}
    office.env.actions = ActionSettings(rollback=RollbackPolicy(excluded=("Ann Lee",)), **policies)
    office.env.people = {"Ann Lee": Person(aliases=("ann@example.com",))}
    return office.token("ann@example.com")


def without_the_role(office: Office) -> dict[str, str]:
    rule = {"roles": ("on-call",)}
    policies: dict[str, Any] = {name: ActionPolicy(**rule) for name in ("acknowledge", "waive", "erase")}
    policies |= {name: RunPolicy(**rule) for name in ("start", "clean_up")}
    office.env.actions = ActionSettings(rollback=RollbackPolicy(roles=("on-call",)), **policies)
    return office.token("max@example.com")


def revoked_person(office: Office) -> dict[str, str]:
    office.env.people = {"max@example.com": Person(revoked=True)}
    return {"authorization": f"Bearer {personal(office, *get_args(Action))}"}


def revoked_token(office: Office) -> dict[str, str]:
    secret = personal(office, *get_args(Action))
    tokens = tokens_of(office)
    tokens.revoke(tokens.list_all()[0].id)
    return {"authorization": f"Bearer {secret}"}


def expired_token(office: Office) -> dict[str, str]:
    secret = personal(office, *get_args(Action))
    office.pass_time(days=31)
    return {"authorization": f"Bearer {secret}"}


def token_from_the_future(office: Office) -> dict[str, str]:
    secret = personal(office, *get_args(Action))
    office.pass_time(hours=-2)
    return {"authorization": f"Bearer {secret}"}


def token_of_a_disabled_account(office: Office) -> dict[str, str]:
    secret = personal(office, *get_args(Action))
    office.context.accounts.disable("max@example.com")
    return {"authorization": f"Bearer {secret}"}


def guessed_token(office: Office) -> dict[str, str]:
    return {"authorization": f"Bearer {personal(office, *get_args(Action))[:-1]}"}


def cookie_of_the_page(office: Office) -> dict[str, str]:
    browser = office.signed_in("max@example.com")
    return {"cookie": f"ratchet-session={browser.cookies['ratchet-session']}"}


def personal(office: Office, *actions: str) -> str:
    office.account("max@example.com")
    return tokens_of(office).add("max@example.com", "password", (), actions, 30, office.times["now"])[0]


def tokens_of(office: Office) -> Tokens:
    return Tokens(office.context.store, office.context.accounts)


WRONG_CALLERS: dict[Callable[[Office], dict[str, str]], int] = {
    without_session: 401, viewer: 403, excluded_person: 403, without_the_role: 403, revoked_person: 403,
    revoked_token: 401, expired_token: 401, token_from_the_future: 401, token_of_a_disabled_account: 401,
    guessed_token: 401, cookie_of_the_page: 401,
}  # fmt: skip


@pytest.mark.parametrize("caller", WRONG_CALLERS, ids=lambda caller: caller.__name__)
def test_the_wrong_caller_of_the_api_does_nothing(office: Office, caller: Callable[[Office], dict[str, str]]) -> None:
    headers = caller(office)
    for action in get_args(Action):
        refused = call(office, action, headers)
        assert refused.status_code == WRONG_CALLERS[caller], refused.text
        assert nothing_happened(office), action


def test_a_token_for_other_actions_does_nothing_and_one_for_this_action_acts(office: Office) -> None:
    for action in get_args(Action):
        others = personal(office, *(set(get_args(Action)) - {action}))
        assert call(office, action, {"authorization": f"Bearer {others}"}).status_code == 403, action
    assert nothing_happened(office)
    for action in get_args(Action):
        own = personal(office, action)
        assert call(office, action, {"authorization": f"Bearer {own}"}).status_code == 200, action


def test_no_personal_token_decides_or_opens_a_page(office: Office) -> None:
    request = office.ask()
    header = {"authorization": f"Bearer {personal(office, *get_args(Action))}"}
    sent = {"approve": True, "reason": REASON, "digest": request.digest}
    assert office.client.post(f"/api/approvals/{request.id}/decision", json=sent, headers=header).status_code == 401
    assert office.client.get("/api/approvals", headers=header).status_code == 401
    assert office.client.get("/actions", headers=header).status_code == 401
    assert office.decisions() == []


def test_tokens_are_stored_as_digests_and_only_their_owner_revokes_them(office: Office) -> None:
    secret = personal(office, "start")
    with sqlite3.connect(office.context.store.path) as database:
        assert secret not in str(database.execute("SELECT * FROM action_tokens").fetchall())
    browser = office.signed_in("eve@example.com")
    token = hidden(browser.get("/actions"), "/actions/token")["token"]
    sent = {"token": token, "id": tokens_of(office).list_all()[0].id}
    assert browser.post("/actions/token/revoke", data=sent).status_code == 403
    assert call(office, "start", {"authorization": f"Bearer {secret}"}).status_code == 200


@EVERY_FORM
def test_a_form_that_another_site_sends_does_nothing(office: Office, path: str) -> None:
    browser = office.signed_in("max@example.com")
    foreign = hidden(office.signed_in("eve@example.com").get("/actions"), "/actions/token")["token"]
    sent = {"model": "churn", "reason": REASON, "alert": ALERT, "note": "on it"}
    for token in ("", "0" * 64, foreign):
        assert browser.post(f"/actions/{path}", data={**sent, "token": token}).status_code == 403
    assert browser.post(f"/actions/{path}", json=sent).status_code == 415
    assert office.another().post(f"/actions/{path}", data=sent).status_code == 401
    assert nothing_happened(office)


def test_the_page_acts_in_the_name_of_who_signed_in(office: Office) -> None:
    office.env.effects().record_deployment(replace(deployed("1"), id="deploy:1"))
    office.env.effects().record_deployment(replace(deployed("2"), id="deploy:2"))
    browser = office.signed_in("max@example.com")
    page = browser.get("/actions")
    back = {**hidden(page, "/actions/rollback"), "to_version": "1", "reason": REASON, "requested_by": "eve"}
    assert browser.post("/actions/rollback", data=back).status_code == 303
    (spec,) = office.starter.specs.values()
    assert (spec.deployment, spec.parameters["requested_by"]) == ("rollback/rollback", "max@example.com")
    assert browser.post("/actions/acknowledge", data=hidden(page, "/actions/acknowledge")).status_code == 303
    assert office.env.outbox().signals(ALERT)[-1].acknowledged_by == "max@example.com"


def test_a_role_of_the_policy_lets_who_only_views_act_and_still_not_decide(office: Office) -> None:
    office.env.gateway = office.env.gateway.model_copy(update={"permissions_by_role": {"on-call": "view"}})
    office.env.actions = ActionSettings(rollback=RollbackPolicy(roles=("on-call",)))
    header = office.token("ola@example.com", "on-call")
    assert call(office, "rollback", header).status_code == 200
    assert call(office, "start", header).status_code == 403


@EVERY_ACTION
def test_an_order_is_used_once_and_again_only_by_the_same_run(env: World, action: Action) -> None:
    order = ordered(env, ACTS[action])
    assert use(env, ACTS[action], order).authenticated
    assert use(env, ACTS[action], order, days=3).authenticated, "a suspended run goes on after its order expired"
    with pytest.raises(Refusal, match="used already"):
        use(env, ACTS[action], order, used_by="flow run 2")


OTHER_ACTS: dict[str, dict[str, Any]] = {
    "another model": {"model": "price"},
    "another environment": {"environment": "production"},
    "another target": {"target": "churn/local/another"},
    "an edited parameter": {"parameters": {"model": "churn", "to_version": "2", "tier": "full", "dry_run": False}},
    "a further parameter": {"parameters": {"model": "churn", "reason": "another"}},
    "a parameter left out": {"parameters": {}},
}


@pytest.mark.parametrize("other", OTHER_ACTS)
@EVERY_ACTION
def test_an_order_for_another_act_does_nothing(env: World, action: Action, other: str) -> None:
    order, act = ordered(env, ACTS[action]), replace(ACTS[action], **OTHER_ACTS[other])
    if act == ACTS[action] or (other == "another target" and not ACTS[action].target):
        act = replace(act, model="price")
    with pytest.raises(Refusal, match="ordered|another"):
        use(env, act, order)
    assert use(env, ACTS[action], order).authenticated, "the order is not spent by the attempt"


@EVERY_ACTION
def test_an_order_for_another_action_does_nothing(env: World, action: Action) -> None:
    for other in set(get_args(Action)) - {action}:
        order = ordered(env, replace(ACTS[action], action=other))
        with pytest.raises(Refusal, match="another action"):
            use(env, ACTS[action], order)


def test_a_parameter_with_the_flows_default_need_not_be_ordered_and_any_other_must(env: World) -> None:
    order, act = ordered(env, ACTS["start"]), ACTS["start"]
    more = replace(act, parameters={**act.parameters, "as_of": ""}, defaults=frozenset({"as_of"}))
    assert use(env, more, order).authenticated
    changed = replace(more, parameters={**more.parameters, "as_of": "snapshot 1"}, defaults=frozenset())
    with pytest.raises(Refusal, match="as_of"):
        use(env, changed, ordered(env, act))


def test_an_order_for_one_flow_starts_no_other_with_the_same_parameters(env: World) -> None:
    monitor = Act("start", "local", "churn", "monitor", parameters={"model": "churn"})
    order = ordered(env, monitor)
    for other in ("experiment", "reproduce", "retrain"):
        with pytest.raises(Refusal, match="another target"):
            use(env, replace(monitor, target=other), order)
    assert use(env, monitor, order).authenticated


def test_numbers_are_compared_as_flows_read_them(env: World) -> None:
    given = replace(ACTS["clean_up"], parameters={"dry_run": False, "grace_days": 30})
    read = replace(given, parameters={"dry_run": False, "grace_days": 30.0})
    assert use(env, read, ordered(env, given)).authenticated
    other = replace(given, parameters={"dry_run": False, "grace_days": True})
    with pytest.raises(Refusal, match="grace_days"):
        use(env, other, ordered(env, replace(given, parameters={"dry_run": False, "grace_days": 1})))


@pytest.mark.parametrize(("wait", "problem"), [({"days": 2}, "expired"), ({"hours": -1}, "later time")])
def test_an_order_is_valid_for_its_time(env: World, wait: dict[str, int], problem: str) -> None:
    order = ordered(env, ACTS["rollback"])
    with pytest.raises(Refusal, match=problem):
        use(env, ACTS["rollback"], order, **wait)


def test_a_person_who_lost_the_right_since_does_nothing_by_an_earlier_order(env: World) -> None:
    order = ordered(env, ACTS["rollback"])
    env.people = {"max@example.com": Person(revoked=True)}
    with pytest.raises(Refusal, match="may not do this"):
        use(env, ACTS["rollback"], order)


def test_an_order_that_another_key_signed_or_nobody_does_nothing(env: World, tmp_path: Path) -> None:
    real = ordered(env, ACTS["rollback"])
    approvals: Any = env.approvals()
    assert isinstance(approvals, FakeApprovals)
    create_key(tmp_path / "own.pem", "ed25519")
    body = record_to_json(record_from_entry(approvals.chain_entries()[0]))
    for signer in (load_signer(tmp_path / "own.pem"), None):
        forged = make_entry(approvals.chain_entries()[0], "action", "", body, signer)
        approvals._links[1:] = [forged]
        with pytest.raises(Refusal, match="no pinned key of decisions has signed"):
            use(env, ACTS["rollback"], forged.hash)
        with pytest.raises(Refusal, match="no pinned key of decisions has signed"):
            use(env, ACTS["rollback"], real)


def test_an_order_whose_row_was_edited_does_nothing(env: World) -> None:
    order = ordered(env, replace(ACTS["rollback"], model="price"))
    approvals: Any = env.approvals()
    link = approvals._links[0]
    record = record_from_entry(link)
    assert isinstance(record, ActionOrder)
    approvals._links[0] = replace(link, body=record_to_json(replace(record, model="churn")))
    with pytest.raises(Refusal, match="it was changed"):
        use(env, ACTS["rollback"], order)


def test_neither_a_decision_nor_a_made_up_id_is_an_order(env: World, office: Office) -> None:
    request = office.ask()
    header = office.token("max@example.com")
    sent = {"approve": True, "reason": REASON, "digest": request.digest}
    assert office.client.post(f"/api/approvals/{request.id}/decision", json=sent, headers=header).status_code == 200
    for made_up in (env.approvals().chain_entries()[0].hash, "0" * 64, "x", "alert:k1"):
        with pytest.raises(Refusal, match="no such order|auto-retrain has not started"):
            use(env, ACTS["start"], made_up)


def test_auto_retrain_starts_only_what_the_ledger_says_and_only_with_its_own_parameters(env: World) -> None:
    act = Act("start", "local", "churn", "retrain", parameters={"model": "churn", "trigger_reason": "drift"})
    env.outbox().record_signal(
        AlertRecord("retraining.started:k1", "churn/local/retraining.started", "retraining.started", "news", "churn",
                    "local", "info", "ann", "it starts", NOW)
    )  # fmt: skip
    tuned = replace(act, parameters={**act.parameters, "parameters": {"seed": 8}})
    with pytest.raises(Refusal, match="sets no such parameter"):
        use(env, tuned, "alert:k1")
    with pytest.raises(Refusal, match="starts no such flow"):
        use(env, replace(act, target="experiment"), "alert:k1")
    with pytest.raises(Refusal, match="has not started"):
        use(env, replace(act, model="price"), "alert:k1")
    actor = use(env, act, "alert:k1", by="automation: model.drift.detected")
    assert (actor.authenticated, actor.person) == (False, False)
    with pytest.raises(Refusal, match="used already"):
        use(env, act, "alert:k1", used_by="flow run 2", by=actor.by)


def test_schedules_start_runs_and_nothing_else_and_not_where_they_are_switched_off(env: World) -> None:
    assert authorize_automatic(env, ACTS["start"]) == Actor("schedule", person=False)
    assert not authorize_automatic(env, WEEKLY).authenticated
    for action in ("rollback", "erase"):
        with pytest.raises(Refusal, match="without a person"):
            authorize_automatic(env, ACTS[action])
    env.actions = ActionSettings(start=RunPolicy(automatic=False))
    with pytest.raises(Refusal, match="without a person"):
        authorize_automatic(env, ACTS["start"])


@pytest.mark.parametrize("changed", [{"grace_days": 1.0}, {"idle_endpoints": "delete"}, {"environment": "production"}])
def test_an_edited_schedule_removes_nothing(env: World, changed: dict[str, Any]) -> None:
    edited = replace(WEEKLY, parameters={**WEEKLY.parameters, **changed}, defaults=WEEKLY.defaults - {*changed})
    with pytest.raises(Refusal, match=r"no deployment in prefect\.yaml has these parameters"):
        authorize_automatic(env, edited)


def test_a_checkout_that_declares_no_schedule_removes_nothing(env: World, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"no deployment in prefect\.yaml has these parameters"):
        authorize_automatic(env, WEEKLY, tmp_path)


def test_nobody_acts_as_auto_retrain_under_the_name_of_a_person(env: World) -> None:
    env.outbox().record_signal(
        AlertRecord("retraining.started:k1", "churn/local/retraining.started", "retraining.started", "news", "churn",
                    "local", "info", "ann", "it starts", NOW)
    )  # fmt: skip
    with pytest.raises(Refusal, match="does not act under this name"):
        use(env, replace(ACTS["start"], parameters={"model": "churn"}), "alert:k1", by="eve@example.com")


def test_a_retry_of_a_run_that_has_ended_does_nothing(env: World) -> None:
    order = ordered(env, ACTS["start"])
    use(env, ACTS["start"], order)
    finish_order(env, order, "flow run 2", NOW)
    assert use(env, ACTS["start"], order, days=3).authenticated, "only the run that used the order ends it"
    finish_order(env, order, "flow run 1", NOW)
    with pytest.raises(Refusal, match="expired"):
        use(env, ACTS["start"], order, days=365)
    with pytest.raises(Refusal, match="used already"):
        use(env, ACTS["start"], order)


def test_a_run_that_never_ended_goes_on_no_longer_than_a_request_waits(env: World) -> None:
    order = ordered(env, ACTS["start"])
    use(env, ACTS["start"], order)
    assert use(env, ACTS["start"], order, days=8).authenticated
    with pytest.raises(Refusal, match="expired"):
        use(env, ACTS["start"], order, days=365)


@EVERY_ACTION
def test_where_names_are_not_proved_the_action_is_marked(env: World, action: Action) -> None:
    env.approval = ApprovalSettings()
    assert use(env, ACTS[action], order="").shown == "max@example.com (not authenticated)"
    made = order_act(env, ACTS[action], Actor("max"), reason=REASON, channel="terminal", now=NOW)
    assert use(env, ACTS[action], made.order_id).shown == "max (not authenticated)"


HIDDEN = ["max\u202e@example.com", "max\x1b[2J", "max\x00", "a\nb", "\u200b\u200b\u200b", "   ", "m", "max\u2028x"]


@pytest.mark.parametrize("name", HIDDEN, ids=ascii)
def test_a_name_that_hides_something_does_nothing(env: World, name: str) -> None:
    env.approval = ApprovalSettings()
    with pytest.raises(Refusal, match="letters or more|nobody sees"):
        use(env, ACTS["start"], order="", by=name)


@pytest.mark.parametrize("reason", ["\x1b]8;;http://x\x07ok", "fine\u202e", "\u200b\u200b\u200b\u200b"], ids=ascii)
def test_a_reason_that_hides_something_orders_nothing(office: Office, reason: str) -> None:
    path, sent = CALLS["rollback"]
    header = office.token("max@example.com")
    assert (
        office.client.post(f"/api/actions/{path}", json={**sent, "reason": reason}, headers=header).status_code == 403
    )
    assert nothing_happened(office)


def deployed(version: str) -> Deployment:
    return Deployment(
        f"deploy:{version}", "price", "local", version, "m" * 64, "deploy", "serving", "max", "why",
        f"price-{version}", NOW,
    )  # fmt: skip


def test_a_rollback_reaches_only_the_versions_that_the_policy_allows(env: World, office: Office) -> None:
    lines = (deployed("3"), deployed("2"), deployed("1"))
    env.actions = ActionSettings(rollback=RollbackPolicy(to="previous"))
    check_rollback_target(env, lines, lines[1])
    with pytest.raises(Refusal, match="only the previous version"):
        check_rollback_target(env, lines, lines[2])
    env.actions = ActionSettings()  # with required authentication: approved
    shown = evidence(trained=TRAINED.model_copy(update={"version": "1"}))
    request = env.approvals().add_request(request_over(shown))
    with pytest.raises(Refusal, match="no verified approval"):
        check_rollback_target(env, lines, lines[2])
    sent = {"approve": True, "reason": REASON, "digest": request.digest}
    header = office.token("max@example.com")
    assert office.client.post("/api/approvals/price-1/decision", json=sent, headers=header).status_code == 200
    check_rollback_target(env, lines, lines[2])
    with pytest.raises(Refusal, match="no verified approval"):
        check_rollback_target(env, lines, replace(lines[2], version="9"))


PAIR = ApprovalRequirements(approvals=1, four_eyes=True, require_authentication=True)


def test_whoever_requested_a_run_under_a_made_up_name_cannot_be_the_only_one_who_approves() -> None:
    assert PAIR.approvals_of(requester_authenticated=True) == 1
    assert PAIR.approvals_of(requester_authenticated=False) == 2
    assert replace(PAIR, unauthenticated_requester="accept").approvals_of(requester_authenticated=False) == 1
    assert replace(PAIR, require_authentication=False).approvals_of(requester_authenticated=False) == 1


def test_a_version_whose_requester_nobody_proved_needs_one_more_approver_or_is_refused(env: World) -> None:
    request = env.approvals().add_request(request_over(evidence()))

    def check(*by: str, policy: ApprovalRequirements = PAIR, **changes: Any) -> None:
        asked = replace(request, **changes)
        made = [
            Decision(asked.id, asked.digest, True, name, REASON, "approvals page", NOW, authenticated=True)
            for name in by
        ]
        check_deployable(
            asked,
            made,
            evidence_digest=asked.digest,
            current_champion="1",
            evaluated_champion="1",
            now=NOW,
            policy=policy,
        )

    check("max@example.com", requester_authenticated=True)
    check("max@example.com", "eve@example.com")
    with pytest.raises(Refusal, match="2 people must approve"):
        check("max@example.com")
    with pytest.raises(Refusal, match="2 people must approve"):
        check("max@example.com", "Max@Example.com")
    with pytest.raises(Refusal, match="nobody proved who requested"):
        check("max@example.com", "eve@example.com", policy=replace(PAIR, unauthenticated_requester="refuse"))
    flipped = replace(request, requester_authenticated=True)
    assert request_digest(flipped) != request_digest(request), "the decisions cover whether the requester was proved"


def opened_by(env: World, *by: str, **changes: Any) -> bool:
    """Whether waivers of these people, who signed in, open a gate of the run that bob requested."""
    links = tuple(
        env.approvals().record_waiver(
            Waiver("price", "local", ("auc",), name, REASON, "gateway", NOW, NOW + timedelta(days=1), True),
            env.signing.signer("decisions"),
        )
        for name in by
    )
    run = {"requested_by": "bob@example.com", "four_eyes": True, "authors": ("Ann <ann@example.com>",)}
    request = request_over(evidence(), **{**run, **changes})
    try:
        check_waivers_valid(env, links, ("auc",), tuple(link.hash for link in links), request, NOW)
    except Refusal:
        return False
    return True


def test_who_starts_a_run_under_a_made_up_name_does_not_alone_waive_its_gates(env: World) -> None:
    assert not opened_by(env, "eve@example.com")
    assert not opened_by(env, "eve@example.com", "Eve@Example.com"), "two waivers of one person are one"
    assert opened_by(env, "eve@example.com", "max@example.com")
    assert opened_by(env, "eve@example.com", requester_authenticated=True)
    env.approval = ApprovalSettings(require_authentication=True, unauthenticated_requester="refuse")
    assert not opened_by(env, "eve@example.com", "max@example.com")


@pytest.mark.parametrize(
    "run",
    [
        {"authors": ("Eve <eve@example.com>",)},
        {"authors": (f"{UNKNOWN_HISTORY} (the checkout does not have all of the history)",)},
        {"requested_by": "EVE@example.com"},
    ],
    ids=["author", "unknown author", "requester"],
)
def test_nobody_waives_the_gates_of_their_own_work(env: World, run: dict[str, Any]) -> None:
    assert not opened_by(env, "eve@example.com", requester_authenticated=True, **run)


def test_a_waiver_of_somebody_whom_the_policy_no_longer_admits_opens_nothing(env: World) -> None:
    proved = {"requester_authenticated": True}
    assert opened_by(env, "eve@example.com", **proved)
    for rule in (ActionPolicy(excluded=("eve@example.com",)), ActionPolicy(roles=("risk",))):
        env.actions = ActionSettings(waive=rule)
        assert not opened_by(env, "eve@example.com", **proved)


TOUCHING_CHURN = {
    "maintenance of the whole lake": Act("clean_up", "local", "", "maintain_lake"),
    "garbage of all models": Act("clean_up", "local", "", "collect_garbage"),
    "reproduction of all models": Act("start", "local", "", "reproduce"),
    "erasure from a model of the same entities": Act("erase", "local", "price", also=("churn",)),
    "a namespace of the model": Act("erase", "local", "price", also=("churn--dana",)),
}


@pytest.mark.parametrize("act", TOUCHING_CHURN.values(), ids=TOUCHING_CHURN)
def test_an_act_that_touches_a_stricter_model_under_another_name_does_nothing(env: World, act: Act) -> None:
    env.approval = ApprovalSettings(models={"churn": RequiredApproval(require_authentication=True)})
    with pytest.raises(Refusal, match="not authenticated"):
        use(env, act, "")
    assert use(env, Act(act.action, "local", "price"), ""), "what touches only other models is marked"


def erasing(env: World, order: str, by: str = "max@example.com", reason: str = "request 17") -> Actor:
    return authorize_erasure(env, [load_model("churn").spec], "h7", order, by, reason, NOW)


def test_a_worker_erases_by_an_order_with_its_own_key(env: World) -> None:
    order = ordered(env, ACTS["erase"])
    env.signing = env.signing.model_copy(update={"decisions_key": ""})
    assert erasing(env, order).shown == "max@example.com"
    with pytest.raises(Refusal, match="used already"):
        erasing(env, order)


def test_an_erasure_that_cannot_be_recorded_uses_no_order_up(env: World) -> None:
    order, signing = ordered(env, ACTS["erase"]), env.signing
    env.signing = signing.model_copy(update={"decisions_key": "", "records_key": ""})
    with pytest.raises(Rejected, match="no key to sign records"):
        erasing(env, order)
    env.signing = signing
    with pytest.raises(Refusal, match="contains the key"):
        erasing(env, order, reason="forget h7")
    assert erasing(env, order).authenticated


def test_the_alert_of_a_deployment_names_a_way_to_roll_back_that_is_not_refused(env: World) -> None:
    assert "Sign in at the gateway" in way_to_roll_back(env, "churn")
    env.gateway = GatewaySettings(address="https://ratchet.example.com")
    assert way_to_roll_back(env, "churn") == "https://ratchet.example.com/actions"
    env.approval = ApprovalSettings()
    assert "prefect deployment run rollback/rollback -p model=churn" in way_to_roll_back(env, "churn")
