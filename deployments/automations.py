"""Automations as code: what the Prefect server starts on events. Each deployment saves them."""

from collections.abc import Sequence
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification


def build_automations() -> Sequence[AutomationCore]:
    """Return all automations; the deployments that they run must exist."""
    with get_client(sync_client=True) as client:
        notify = client.read_deployment_by_name("notify/notify").id
        auto_retrain = client.read_deployment_by_name("auto_retrain/auto-retrain").id
    return (
        AutomationCore(
            name="Ratchet: deliver alerts",
            description="Something happened to a model or an environment: deliver what the ledger's outbox holds.",
            trigger=EventTrigger(
                expect={"model.*", "evaluation.*", "approval.*", "release.*", "retraining.*", "environment.*"},
                match=ResourceSpecification({"prefect.resource.id": ["ratchet.model.*", "ratchet.environment.*"]}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=notify,
                    job_variables=None,
                    parameters={"environment": "{{ event.resource['ratchet.environment'] }}"},
                )
            ],
        ),
        AutomationCore(
            name="Ratchet: auto-retrain on drift or degraded quality",
            description="A model with retraining.automatic drifts or has degraded: auto-retrain checks its guards.",
            trigger=EventTrigger(
                expect={"model.drift.detected", "model.quality.degraded"},
                match=ResourceSpecification(
                    {"prefect.resource.id": "ratchet.model.*", "ratchet.retraining": "automatic"}
                ),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=auto_retrain,
                    job_variables=None,
                    parameters={
                        "model": "{{ event.resource['prefect.resource.name'] }}",
                        "event": "{{ event.event }}",
                        "alert_record_key": "{{ event.payload['key'] }}",
                        "environment": "{{ event.resource['ratchet.environment'] }}",
                    },
                )
            ],
        ),
    )


def save_automations() -> None:
    """Save all automations, replacing those with the same name; one that was paused on the UI stays paused."""
    with get_client(sync_client=True) as client:
        for automation in build_automations():
            known = client.read_automations_by_name(automation.name)
            if known:
                client.update_automation(known[0].id, automation.model_copy(update={"enabled": known[0].enabled}))
            else:
                client.create_automation(automation)
