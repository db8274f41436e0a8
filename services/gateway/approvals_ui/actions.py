"""Actions of signed-in people and their programs: the page /actions, and the API /api/actions.

The page takes forms of its own sessions alone. The API takes the token of a session, or a personal token with the
action in its scope; it takes no cookie. Both sign an order in the person's name and do the act, or start its flow run.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

from fastapi import APIRouter, Response

from blocks.common.errors import NotFound, PortError, TransientError
from blocks.environment import Environment
from blocks.records.actions import Action
from blocks.records.approvals import Waiver
from services.gateway.approvals_ui.pages import Pages
from services.gateway.approvals_ui.tokens import ACTIONS, TOKEN_PREFIX, Tokens
from services.gateway.approvals_ui.users import ApprovalsContext, SignedInUser
from services.gateway.approvals_ui.web import (
    RequestError,
    UiRequest,
    add_route,
    json_response,
    redirect,
    render_page,
)
from services.gateway.orders import run_act, start_ordered_run
from services.gateway.rules.strict_json import read_object
from services.gateway.run_starter import RunStarter
from tasks.approval.rules.actions import Act, Actor
from tasks.approval.rules.history import champion_of
from tasks.notification.delivery import acknowledge, open_causes
from tasks.shared.actions import sign_order
from tasks.shared.rules.refusal import Refusal
from tasks.shared.waivers import record_waiver

VIEW_ONLY = "Your roles let you view this site, but not do this."
DEFAULT_TOKEN_DAYS, MAX_TEXT_LENGTH = 30, 2_000


@dataclass(frozen=True)
class TokenUser(SignedInUser):
    """The person of a personal token, and the actions that the token allows."""

    scope: tuple[str, ...] = ()


class ActionsSite:
    """The handlers of the page and of the API."""

    def __init__(self, context: ApprovalsContext, pages: Pages, starter: RunStarter) -> None:
        self._context, self._pages, self._starter = context, pages, starter
        self._tokens, self._starting = Tokens(context.store, context.accounts), Lock()

    def add_routes(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the routes of the page and of the API."""
        for method, path, handler in (
            ("GET", "/actions", self.page),
            ("POST", "/actions/rollback", self._form(self._roll_back)),
            ("POST", "/actions/acknowledge", self._form(self._acknowledge)),
            ("POST", "/actions/token", self.add_token),
            ("POST", "/actions/token/revoke", self._form(self._revoke_token)),
        ):
            add_route(router, pool, method, path, handler, self._pages.error_page)
        for path, act in (
            ("/api/actions/runs", self._start_run),
            ("/api/actions/acknowledge", self._acknowledge),
            ("/api/actions/waive", self._waive),
            ("/api/actions/orders", self._order),
        ):
            add_route(router, pool, "POST", path, self._api(act), _error_response)

    def page(self, call: UiRequest) -> Response:
        """Show the deployed versions, the open alerts, and the person's tokens, each with its form."""
        return self._render(self._context.signed_in(call))

    def add_token(self, call: UiRequest) -> Response:
        """Create a personal token, and show it once."""
        user = self._context.signed_in(call)
        form, session = self._context.check_form(user.session, call), user.session
        actions = [name.removeprefix("action_") for name in form if name.startswith("action_")]
        try:
            days = int(form.get("days", "") or DEFAULT_TOKEN_DAYS)
            secret, _ = self._tokens.add(
                session.name, session.sign_in_via, session.groups, actions, days, self._context.clock()
            )
        except (Refusal, ValueError) as refusal:
            return self._render(user, 422, str(refusal))
        return self._render(user, 200, secret=secret)

    def _roll_back(self, user: SignedInUser, given: Mapping[str, Any]) -> dict[str, Any]:
        parameters = {"model": _text(given, "model"), "to_version": _text(given, "to_version", required=False)}
        run = {"deployment": "rollback/rollback", "parameters": parameters, "reason": _text(given, "reason")}
        return self._start_run(user, run)

    def _start_run(self, user: SignedInUser, given: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run: {"deployment": "retrain/retrain", "parameters": {…}, "reason": "…"}."""
        env, deployment, parameters = self._environment, _text(given, "deployment"), given.get("parameters", {})
        if not isinstance(parameters, dict):
            raise RequestError(422, '"parameters" is an object: name and value of each parameter.')
        actor = self._actor(user, run_act(env, deployment, parameters).action)
        with self._starting:  # the connection to Prefect is for one thread at a time
            signed, run_id = start_ordered_run(
                env, self._starter, deployment, parameters, actor,
                reason=_text(given, "reason"), channel=_channel(user), now=self._context.clock(),
            )  # fmt: skip
        return {"outcome": "started", "order": signed.order_id, "run": run_id}

    def _acknowledge(self, user: SignedInUser, given: Mapping[str, Any]) -> dict[str, Any]:
        """Acknowledge an alert: {"alert": "…", "note": "…"}."""
        actor, note = self._actor(user, "acknowledge"), _text(given, "note", required=False)
        done = acknowledge(self._environment, _text(given, "alert"), actor, note, _channel(user), self._context.clock())
        return {"outcome": "acknowledged", "alert": done.cause, "by": done.acknowledged_by, "order": done.order_id}

    def _waive(self, user: SignedInUser, given: Mapping[str, Any]) -> dict[str, Any]:
        """Waive gates: {"model": "…", "gates": ["…"], "until": "2026-12-31T00:00:00Z", "reason": "…"}."""
        actor, gates, env = self._actor(user, "waive"), given.get("gates"), self._environment
        if not (isinstance(gates, list) and all(isinstance(each, str) for each in gates)):
            raise RequestError(422, '"gates" is a list of names.')
        until = _time(_text(given, "until"))
        waiver = Waiver(
            _text(given, "model"), env.name, tuple(gates), actor.by, _text(given, "reason"), _channel(user),
            self._context.clock(), until, actor.authenticated, actor.roles,
        )  # fmt: skip
        return {"outcome": "waived", "decision": record_waiver(env, waiver).number}

    def _order(self, user: SignedInUser, given: Mapping[str, Any]) -> dict[str, Any]:
        """Sign an order for a command on another machine: {"action": "erase", "model": "…", "reason": "…"}."""
        if given.get("action") != "erase":
            raise RequestError(422, '"action" is erase; other acts are done by the paths of this API.')
        env, actor = self._environment, self._actor(user, "erase")
        act = Act("erase", env.name, _text(given, "model"))
        now = self._context.clock()
        signed = sign_order(env, act, actor, reason=_text(given, "reason"), channel=_channel(user), now=now)
        return {"outcome": "ordered", "order": signed.order_id}

    def _revoke_token(self, user: SignedInUser, given: Mapping[str, Any]) -> dict[str, Any]:
        self._tokens.revoke(_text(given, "id"), user.name)
        return {"outcome": "revoked"}

    def _actor(self, user: SignedInUser, action: Action) -> Actor:
        """Return the user as an actor. Who may only view may act where the policy names roles."""
        if user.permission != "decide" and not self._environment.actions.policy(action).roles:
            raise RequestError(403, VIEW_ONLY)
        if isinstance(user, TokenUser) and action not in user.scope:
            raise RequestError(403, f"This token is not for the action {action}.")
        return Actor(user.name, authenticated=True, roles=user.roles)

    def _form(self, act: Callable[[SignedInUser, Mapping[str, Any]], dict[str, Any]]) -> Callable[..., Response]:
        """Return the handler of a form of the page: it shows the page again with the problem, if there is one."""

        def handle(call: UiRequest) -> Response:
            user = self._context.signed_in(call)
            form = self._context.check_form(user.session, call)
            try:
                _translated(act, user, form)
            except RequestError as error:
                return self._render(user, error.status, error.message)
            return redirect("/actions")

        return handle

    def _api(self, act: Callable[[SignedInUser, Mapping[str, Any]], dict[str, Any]]) -> Callable[..., Response]:
        """Return the handler of a path of the API."""

        def handle(call: UiRequest) -> Response:
            user = self._program_user(call)
            if call.media_type != "application/json":
                raise RequestError(415, "Send application/json.")
            return json_response(200, _translated(act, user, _read_object(call.content)))

        return handle

    def _program_user(self, call: UiRequest) -> SignedInUser:
        context, env = self._context, self._environment
        secret = _bearer_token(call)
        if not secret.startswith(TOKEN_PREFIX):
            return context.signed_in(call, "api")
        found = self._tokens.find(secret, env.gateway, context.clock())
        user = context.require_user(found[0] if found else None)
        return TokenUser(user.session, user.roles, user.permission, found[1] if found else ())

    def _render(self, user: SignedInUser, status: int = 200, problem: str = "", secret: str = "") -> Response:
        env, now = self._environment, self._context.clock()
        lines = {name: env.effects().deployments(name, env.name) for name in env.effects().model_names(env.name)}
        deployed = {name: champion_of(each) for name, each in lines.items() if champion_of(each)}
        earlier = {
            name: sorted({line.version for line in lines[name] if line.status == "serving"} - {version})
            for name, version in deployed.items()
        }
        return render_page(
            status, "actions.html", user=user, token=self._context.sessions.form_token(user.session.key),
            problem=problem, secret=secret, deployed=deployed, earlier=earlier, actions=ACTIONS,
            alerts=[env.outbox().signals(cause)[-1] for cause in open_causes(env.outbox(), now)],
            tokens=[each for each in self._tokens.list_all(user.name) if not each.revoked and each.ends_at > now],
        )  # fmt: skip

    @property
    def _environment(self) -> Environment:
        return self._context.current_environment()


def _translated(
    act: Callable[[SignedInUser, Mapping[str, Any]], dict[str, Any]], user: SignedInUser, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Do an act; raise RequestError when it is refused or fails."""
    try:
        return act(user, given)
    except Refusal as refusal:
        raise RequestError(403, str(refusal)) from refusal
    except NotFound as missing:
        raise RequestError(404, str(missing)) from missing
    except TransientError as cause:
        raise RequestError(503, f"A service that is needed for this is unavailable; try again: {cause}") from cause
    except PortError as cause:
        raise RequestError(409, str(cause)) from cause


def _bearer_token(call: UiRequest) -> str:
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        return read_object(body)
    except Refusal as refusal:
        raise RequestError(400, str(refusal)) from refusal


def _text(given: Mapping[str, Any], name: str, *, required: bool = True) -> str:
    value = given.get(name, "")
    if not isinstance(value, str) or (required and not value.strip()) or len(value) > MAX_TEXT_LENGTH:
        raise RequestError(422, f'Send "{name}", a text of at most {MAX_TEXT_LENGTH:,} characters.')
    return value.strip()


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.utcoffset() is None:
        raise RequestError(422, "Write a time with its zone, such as 2026-12-31T00:00:00Z.")
    return time


def _channel(user: SignedInUser) -> str:
    way = "personal token of a person" if isinstance(user, TokenUser) else "gateway"
    return f"{way}, {user.sign_in_method}"


def _error_response(_: UiRequest, error: RequestError) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    return json_response(error.status, {"outcome": "refused", "reason": error.message}, headers)
