"""Deliver alert messages to people."""

from prefect import flow
from prefect.client.schemas.objects import State

from flows.options import begin_run
from flows.outcomes import end_run
from flows.parameters import EnvironmentName
from tasks.notification.tasks import deliver_alerts
from tasks.shared.rules.run_outcomes import Outcome, run_name


@flow(name="notify", flow_run_name="alerts of {environment}", on_running=[begin_run])
def notify(environment: EnvironmentName = "local") -> State:
    """Send the messages of the outbox, and reminders of open alerts, over the environment's channels.

    An automation starts this flow after each event of a model; its schedule retries failed messages.

    Args:
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    done = deliver_alerts(environment)
    message = f"{done.delivered} delivered, {done.failed} refused or out of reach, {done.not_due} wait for their time"
    outcome: Outcome = "undelivered" if done.failed else "delivered"
    count = done.failed or done.delivered
    return end_run(outcome, message, run_name(environment, f"{count} {outcome}"))
