"""Settings from Terraform: its outputs become an environment that `register` and all adapters accept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from blocks.common.aws.cloudwatch_logs import LogGroup
from blocks.common.errors import Conflict, NotFound, Rejected
from blocks.environment_settings import adapter_class
from deployments import register
from deployments.aws import settings as settings_of_aws
from deployments.aws.settings import REQUIRED_OUTPUTS, environment_toml, read_outputs, write_environment
from tests.checkout import ROOT
from tests.fixtures.command_line import ratchet
from tests.fixtures.signing_keys import MODELS, RECORDS, SIGNER

OUTPUTS = {
    "environment": "production", "region": "us-east-1", "bucket": "ratchet-production-123456789012",
    "jobs_role_arn": "arn:aws:iam::123456789012:role/ratchet-production-jobs", "tracking_uri": "",
    "log_group": "/ratchet/production",
}  # fmt: skip
VARIABLES = {
    "RATCHET_STATE": "/state", "RATCHET_IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/ratchet@sha256:aa",
    "RATCHET_MLFLOW_URL": "https://mlflow", "RATCHET_LEDGER_URL": "postgresql://ledger/ratchet",
    "RATCHET_DECISIONS_KEY": SIGNER.public_key_line, "RATCHET_RECORDS_KEY": RECORDS.public_key_line, "RATCHET_MODELS_KEY": MODELS.public_key_line,
}  # fmt: skip


def printed(**changes: object) -> str:
    values = {**OUTPUTS, "cluster": "ratchet-production", **changes}
    return json.dumps({name: {"sensitive": False, "type": "string", "value": value} for name, value in values.items()})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what `register` reads from the written file."""
    (tmp_path / "deployments" / "environments").mkdir(parents=True)
    write_environment(read_outputs(printed()), tmp_path / "deployments" / "environments", force=False)
    monkeypatch.setattr(register, "ROOT", tmp_path)
    return register.read_environment_settings("production", VARIABLES)


def test_the_environment_is_read_with_what_terraform_made(settings: dict[str, Any]) -> None:
    assert settings["lake"]["bucket"] == settings["trainer"]["bucket"] == OUTPUTS["bucket"]
    assert settings["trainer"]["role_arn"] == settings["endpoint"]["role_arn"] == OUTPUTS["jobs_role_arn"]
    assert settings["tracking"]["tracking_uri"] == "https://mlflow"
    assert settings["trainer"]["tags"] == {"ratchet:environment": "production"}


PORTS = (
    "lake",
    "engine",
    "trainer",
    "small_trainer",
    "endpoint",
    "batch_inference",
    "cloud_cleanup",
    "tracking",
    "ledger",
)


def test_the_log_group_takes_every_field_that_is_written(settings: dict[str, Any]) -> None:
    assert LogGroup(**settings["logs"]).group


@pytest.mark.parametrize("port", PORTS)
def test_each_adapter_takes_every_field_that_is_written(port: str, settings: dict[str, Any], tmp_path: Path) -> None:
    fields = dict(settings[port])
    path = fields.pop("adapter")
    try:
        kind = adapter_class(path)
    except NotFound:
        assert "sagemaker" in path
        pytest.skip(f"{path} is not written yet")
    unknown = set(fields) - set(kind.model_fields)
    assert not unknown
    kind(**fields)


def test_a_managed_tracking_server_is_named_by_its_arn() -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/ratchet-production"
    assert f'tracking_uri = "{arn}"' in environment_toml(read_outputs(printed(tracking_uri=arn)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not the output of `terraform output -json`"),
        ("{}", "lack environment, region, bucket"),
        ('{"bucket": "x"}', "not the output of"),
        (printed(bucket=None), "lack bucket"),
        (printed(bucket=""), "bucket are not"),
        (printed(bucket='a"\nroot = "/'), "bucket are not"),
        (printed(region="${HOME}"), "region are not"),
        (printed(environment="../production"), "name '../production'"),
        (printed(environment="Production"), "'Production'"),
    ],
)
def test_outputs_of_another_form_are_refused(text: str, told: str) -> None:
    with pytest.raises(Rejected, match=re.escape(told)):
        read_outputs(text)


def test_a_file_that_somebody_changed_is_left_alone_unless_forced(tmp_path: Path) -> None:
    outputs = read_outputs(printed())
    path = write_environment(outputs, tmp_path, force=False)
    assert write_environment(outputs, tmp_path, force=False) == path
    path.write_text("# mine\n")
    with pytest.raises(Conflict, match="--force"):
        write_environment(outputs, tmp_path, force=False)
    assert write_environment(outputs, tmp_path, force=True).read_text() == environment_toml(outputs)


def test_the_command_reads_what_terraform_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_of_aws, "FOLDER", tmp_path)
    written = ratchet("environment", "write", typed=printed())
    assert written.exit_code == 0 and "production.toml" in written.stdout
    assert (tmp_path / "production.toml").exists()
    assert ratchet("environment", "write", typed="no").exit_code == 1


def test_terraform_has_every_output_that_is_needed() -> None:
    text = (ROOT / "deployments" / "aws" / "outputs.tf").read_text()
    assert set(REQUIRED_OUTPUTS) <= set(re.findall(r'^output "(\w+)"', text, re.MULTILINE))
