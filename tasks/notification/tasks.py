"""Prefect tasks of notification: emit alerts of a flow run, and deliver what waits."""

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import open_environment
from tasks.notification.delivery import deliver_all
from tasks.shared.alerts import State, tell
from tasks.shared.records import Delivered
from tasks.shared.retries import STAGE


@task(name="deliver alerts", **STAGE)
def deliver(environment: str) -> Delivered:
    """Write down what is due, reminders included, and deliver what no receiver has taken yet."""
    world = open_environment(environment)
    done = deliver_all(world, world.outbox(), lambda: datetime.now(UTC))
    get_run_logger().info(
        "%d delivered, %d refused or out of reach, %d wait", done.delivered, done.failed, done.waiting
    )
    return done


@task(name="tell", **STAGE)
def tell_of_run(
    model: str, event: str, sentence: str, environment: str, about: str = "", state: State | None = None
) -> None:
    """Tell of this flow run: once, however often it is started again."""
    key = ":".join(filter(None, (event, str(flow_run.id), about, state or "")))
    tell(open_environment(environment), event, model=model, sentence=sentence, key=key, about=about, state=state)
