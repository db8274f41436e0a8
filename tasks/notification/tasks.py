"""Prefect tasks of notification: emit alerts about a flow run, and deliver queued messages."""

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import trusted_environment
from tasks.notification.delivery import deliver_messages
from tasks.notification.rules.kinds import AlertRecordState
from tasks.shared.alerts import emit_alert
from tasks.shared.records import DeliveryResult
from tasks.shared.reports import only_reports
from tasks.shared.retries import TASK_OPTIONS


@task(name="deliver alerts", **TASK_OPTIONS)
def deliver_alerts(environment: str) -> DeliveryResult:
    """Queue the messages that are due, including reminders, and deliver all queued messages."""
    env = trusted_environment(environment)  # alerts must be sent although a block was changed
    done = deliver_messages(env, env.outbox(), lambda: datetime.now(UTC))
    get_run_logger().info(
        "%d delivered, %d refused or out of reach, %d wait", done.delivered, done.failed, done.not_due
    )
    return done


@task(name="notify run", **TASK_OPTIONS)
def notify_run(
    model: str, event: str, sentence: str, environment: str, about: str = "", state: AlertRecordState | None = None
) -> None:
    """Notify people about this flow run: once, even when the run is retried. What the run did stays done."""
    key = ":".join(filter(None, (event, str(flow_run.id), about, state or "")))
    with only_reports(f"the alert {event}"):
        emit_alert(
            trusted_environment(environment),
            event,
            model=model,
            sentence=sentence,
            alert_record_key=key,
            subject_id=about,
            state=state,
        )
