"""Who starts this flow run: the order in its parameters, the schedule, or a name that nobody proved."""

import inspect
from datetime import UTC, datetime

from prefect.context import FlowRunContext

from blocks.environment import open_environment
from tasks.approval.rules.actions import Act, Actor
from tasks.shared.actions import FLOW_ACTIONS, authorize, authorize_automatic, run_user

SOMEBODY = "somebody"
"""Who starts a run whose parameters name nobody."""


def authorize_run(flow_name: str, model: str, environment: str, order: str, by: str = "") -> Actor:
    """Return who started this flow run, after checking its order and the environment's policy.

    A retried or resumed run may use its order again; another run may not.

    Args:
        flow_name: the flow's name, which gives the action.
        model: the model's name; "" for all of them.
        environment: the environment of the run.
        order: the id of a signed order; "" for none.
        by: the requester as the run's parameters name them.

    Raises:
        Refusal: the order is not for this run, or the policy does not admit whoever started it.
    """
    env, context = open_environment(environment), FlowRunContext.get()
    parameters, defaults, run = {}, frozenset[str](), None
    if context is not None and context.flow is not None:
        parameters, run = dict(context.parameters or {}), context.flow_run
        known = inspect.signature(context.flow.fn).parameters
        defaults = frozenset(name for name, value in parameters.items() if value == known[name].default)
    act = Act(FLOW_ACTIONS[flow_name], environment, model, flow_name, parameters, defaults)
    if run is not None and run.auto_scheduled and not order:
        return authorize_automatic(env, act)
    used_by = run_user(run.id) if run else "no flow run"
    return authorize(env, act, order=order, by=by or SOMEBODY, used_by=used_by, now=datetime.now(UTC))
