"""Deliver alerts to people, until they have arrived."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.parameters import EnvironmentName
from flows.run_log import send_run_log
from tasks.notification.tasks import deliver_alerts


@flow(
    name="notify",
    flow_run_name="alerts of {environment}",
    on_running=[send_run_log],
)
def notify(environment: EnvironmentName = "local") -> State:
    """Send what the outbox holds, and reminders of what lasts, over the environment's channels.

    An automation starts this when something happens to a model; the schedule tries again what failed.

    Args:
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    done = deliver_alerts(environment)
    message = f"{done.delivered} delivered, {done.failed} refused or out of reach, {done.not_due} wait for their time"
    return Completed(name="Undelivered" if done.failed else "Delivered", message=message)
