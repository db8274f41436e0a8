"""Configuration of the approvals page: the valid settings of [gateway]; a change of the file takes effect at once."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.approvals.sql import SqlApprovals
from blocks.common.gateway_settings import GatewaySettings, OpenIdConnect
from blocks.environment import Environment
from deployments.register import read_environment_settings, write_trust_file
from services.gateway.settings import EnvironmentReader
from tests.fixtures.signing_keys import MODELS, RECORDS, SIGNER

OIDC = {"issuer": "https://login.example.com", "client_id": "ratchet"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "http://ratchet.example.com"}, {"address": "https://ratchet.example.com/"},
        {"address": "http://127.0.0.1.evil.example"}, {"address": "http://127.0.0.1:80@evil.example"},
        {"address": "https://a\n.example"}, {"address": "https:evil"}, {"address": "https://a\\b"}, {"session_hours": 0}, {"session_hours": 48}, {"idle_minutes": 0},
        {"permissions_by_role": {"approver": "own"}}, {"unknown": 1}, {"oidc": {**OIDC, "issuer": "http://login.example.com"}},
        {"oidc": {**OIDC, "scopes": ("email",)}}, {"oidc": {**OIDC, "algorithms": ("none",)}},
        {"oidc": {**OIDC, "algorithms": ("HS256",)}}, {"oidc": {**OIDC, "algorithms": ()}},
        {"oidc": {**OIDC, "client_secret": "in clear"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_would_open_a_door_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(**wrong)


def test_what_is_right_is_taken() -> None:
    assert GatewaySettings(address="http://127.0.0.1:8090").allow_passwords
    assert GatewaySettings(address="https://ratchet.example.com", oidc=OpenIdConnect(**OIDC)).oidc is not None


def test_an_environment_carries_what_its_file_says_of_the_gateway(variables: dict[str, str]) -> None:
    settings = {**read_environment_settings("local", variables), "gateway": {"address": "https://ratchet.example.com"}}
    assert Environment.from_settings("local", settings).gateway.address == "https://ratchet.example.com"
    with pytest.raises(Exception, match=r"local\.toml.*gateway\.adress"):
        Environment.from_settings("local", {**settings, "gateway": {"adress": "https://x"}})


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return {
        "RATCHET_STATE": str(tmp_path), "RATCHET_MLFLOW_URL": "http://127.0.0.1:1",
        "RATCHET_ENDPOINTS_URL": "http://127.0.0.1:1", "RATCHET_DECISIONS_KEY": SIGNER.public_key_line,
        "RATCHET_RECORDS_KEY": RECORDS.public_key_line, "RATCHET_MODELS_KEY": MODELS.public_key_line,
    }  # fmt: skip


def test_the_desk_needs_no_prefect_and_follows_the_file(variables: dict[str, str], tmp_path: Path) -> None:
    trust = tmp_path / "trust" / "local.toml"
    write_trust_file(trust, read_environment_settings("local", variables))
    env = EnvironmentReader("local", trust.parent)
    first = env()
    assert isinstance(first.approvals(), SqlApprovals)
    assert env() is first, "nothing changed"
    variables["RATCHET_DECISIONS_KEY"] = MODELS.public_key_line
    write_trust_file(trust, read_environment_settings("local", variables))
    changed = env()
    assert changed is not first
    assert changed.signing.trusted_decision_keys == (MODELS.public_key_line,)
