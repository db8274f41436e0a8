"""Attacks on what decides who may decide: the blocks on the Prefect server, a checkout's files, and the trust file."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.flow_runs import resume_flow_run

from blocks.common.errors import Corrupt, Rejected
from blocks.environment import Environment, TrustDiffers, open_environment, trusted_environment
from blocks.environment_settings import NoTrustFile, read_trusted_settings
from deployments.flow_runs import is_ended, wait_for_run
from deployments.register import write_trust_file
from local.stack import Stack
from tasks.approval.requests import submit_decision
from tasks.notification.delivery import open_causes
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import verified_chain
from tests.checkout import ROOT
from tests.fixtures.command_line import ratchet
from tests.fixtures.signing_keys import SIGNER, signing_in
from tests.fixtures.support import SMALL, customers, environment_settings, ingest_frame, outcome, run, save_settings

SETTINGS: Mapping[str, Any] = {
    "scratch": "/srv/scratch",
    "people": {"max@example.com": {"aliases": ['Max "Second"', "mäx"], "roles": ["model-risk"]}},
    "approval": {"approvals": 2, "models": {"churn": {"approvals": 3}}},
    "signing": {"trusted_decision_keys": [SIGNER.public_key_line]},
    "lake": {"adapter": "blocks.lake.local.LocalLake", "root": "/srv/lake\\new\x7f"},
    "engine": {"adapter": "blocks.engines.duckdb.DuckDBEngine"},
    "trainer": {"adapter": "blocks.trainers.local.LocalTrainer", "root": "/srv/jobs", "grace_seconds": 2.5},
    "endpoint": {"adapter": "blocks.endpoints.local.LocalEndpoint", "url": "http://e", "token_file": "/srv/token",
                 "releases_folder": "/srv/releases"},
    "tracking": {"adapter": "blocks.tracking.mlflow.MlflowTracking", "tracking_uri": "http://m"},
    "ledger": {"adapter": "blocks.database.ledger.SqlLedger", "url": "postgresql://u:password@db/ledger"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a machine's trust files, with that of `production`."""
    write_trust_file(tmp_path / "trust" / "production.toml", SETTINGS)
    return tmp_path / "trust"


def read(folder: Path) -> dict[str, Any]:
    return read_trusted_settings("production", folder, folder / "nothing")


# the file itself


def test_what_is_written_is_read_and_only_its_owner_may_read_it(folder: Path) -> None:
    assert read(folder) == SETTINGS
    assert (folder / "production.toml").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def others_write(folder: Path) -> None:
    (folder / "production.toml").chmod(0o602)


def the_group_writes(folder: Path) -> None:
    (folder / "production.toml").chmod(0o620)


def others_replace_it(folder: Path) -> None:
    folder.chmod(0o777)


def it_is_a_link_to_a_file_that_others_write(folder: Path) -> None:
    moved = (folder / "production.toml").rename(folder.parent / "elsewhere.toml")
    moved.chmod(0o666)
    (folder / "production.toml").symlink_to(moved)


def it_is_a_link_into_a_folder_that_others_write(folder: Path) -> None:
    (folder.parent / "public").mkdir()
    moved = (folder / "production.toml").rename(folder.parent / "public" / "production.toml")
    moved.parent.chmod(0o777)
    (folder / "production.toml").symlink_to(moved)


def it_is_a_link_to_nothing(folder: Path) -> None:
    (folder / "production.toml").unlink()
    (folder / "production.toml").symlink_to(folder / "nothing.toml")


def it_is_a_folder(folder: Path) -> None:
    (folder / "production.toml").unlink()
    (folder / "production.toml").mkdir()


@pytest.mark.parametrize(
    "attack",
    [others_write, the_group_writes, others_replace_it, it_is_a_link_to_a_file_that_others_write,
     it_is_a_link_into_a_folder_that_others_write, it_is_a_link_to_nothing, it_is_a_folder],
    ids=lambda each: str(each.__name__),
)  # fmt: skip
def test_a_trust_file_that_others_may_change_is_not_read(attack: Callable[[Path], None], folder: Path) -> None:
    attack(folder)
    with pytest.raises(Rejected, match=r"production\.toml"):
        read(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_trust_file_of_another_user_is_not_read(folder: Path) -> None:
    os.chown(folder / "production.toml", 12345, 12345)
    with pytest.raises(Rejected, match="changed by others"):
        read(folder)


@pytest.mark.parametrize("name", ["../production", "/etc/passwd", "", ".", "a/b", "production\n"])
def test_a_name_leads_to_no_other_file(name: str, folder: Path) -> None:
    with pytest.raises(NoTrustFile):
        read_trusted_settings(name, folder / "below", folder / "nothing")


def test_no_variable_moves_the_trust_of_a_machine_that_has_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Job variables of a flow run set its environment variables: they lead to no file that an attacker made."""
    mine = {**SETTINGS, "approval": {"approvals": 1}}
    for name in ("production", "mine"):
        write_trust_file(tmp_path / "attacker" / f"{name}.toml", mine)
    monkeypatch.setenv("RATCHET_TRUST", str(tmp_path / "attacker"))
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path / "attacker"))
    assert read_trusted_settings("production", None, folder) == SETTINGS
    with pytest.raises(NoTrustFile, match="python -m ratchet trust write mine"):
        read_trusted_settings("mine", None, folder)


def test_the_files_of_a_checkout_are_trusted_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may push to a branch could change `deployments/environments`, or add a file."""
    monkeypatch.delenv("RATCHET_TRUST", raising=False)
    monkeypatch.setenv("RATCHET_STATE", str(ROOT / "deployments"))
    with pytest.raises(NoTrustFile, match="trust write local"):
        open_environment("local")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"aproval": {"approvals": 2}}, "aproval"),
        ({"approval": {"aprovals": 2}}, "aprovals"),
        ({"tracking": {**SETTINGS["tracking"], "trusted_key": ["x"]}}, "trusted_key"),
    ],
    ids=["a table", "a key", "a key of an adapter"],
)
def test_a_misspelt_setting_is_refused_instead_of_left_out(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(Rejected, match=named):
        list(Environment.from_settings("production", {**SETTINGS, **changed}).adapters())


def test_the_file_is_shown_without_passwords(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_TRUST", str(folder))
    shown = ratchet("trust", "show", "production")
    assert shown.exit_code == 0 and "approvals=2" in shown.stdout and "u:password" not in shown.stdout
    (folder / "production.toml").chmod(0o666)
    refused = ratchet("trust", "show", "production")
    assert refused.exit_code == 1 and "chmod go-w" in refused.stderr


# the blocks on the Prefect server


@contextmanager
def changed_block(slug: str, change: Callable[[dict[str, Any]], object], name: str = "local") -> Iterator[None]:
    """Change a block over Prefect's API, as whoever may write to it can, and put it back."""
    with get_client(sync_client=True) as client:
        block = client.read_block_document_by_name(name, slug, include_secrets=True)
        before, after = dict(block.data), dict(block.data)
        change(after)

        def store(data: dict[str, Any]) -> None:
            client.update_block_document(block.id, BlockDocumentUpdate(data=data, merge_existing_data=False))

        store(after)
        try:
            yield
        finally:
            store(before)


def put(*path: str, value: object) -> Callable[[dict[str, Any]], object]:
    """Return a change that sets one setting of a block, such as signing.trusted_decision_keys."""

    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data[key] = dict(data[key])
            data = data[key]
        data[path[-1]] = value

    return change


ENVIRONMENT, MINE = "ratchet-environment", [SIGNER.public_key_line]
CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "keys of decisions": (ENVIRONMENT, put("signing", "trusted_decision_keys", value=MINE), "signing"),
    "keys of models": (ENVIRONMENT, put("signing", "trusted_model_keys", value=MINE), "signing"),
    "no anchored head": (ENVIRONMENT, put("signing", "decisions_head_file", value=""), "signing"),
    "how many approve": (ENVIRONMENT, put("approval", "approvals", value=2), "approval"),
    "another policy for one model": (ENVIRONMENT, put("approval", "models", value={"churn": {}}), "approval"),
    "people": (
        ENVIRONMENT,
        put("people", value={"eve": {"roles": ["risk"], "aliases": [], "revoked": False}}),
        "people",
    ),
    "permissions": (ENVIRONMENT, put("gateway", "permissions_by_role", value={"viewer": "decide"}), "gateway"),
    "no alerts": (ENVIRONMENT, put("alerts", "remind_hours", value=0.0), "alerts"),
    "folder of evidence": (ENVIRONMENT, put("evidence_root", value="/srv/other"), "evidence_root"),
    "another ledger class": (
        ENVIRONMENT,
        put("ledger_adapter", value="blocks.database.fake.FakeLedger"),
        "ledger_adapter",
    ),
    "a block that is not valid": (ENVIRONMENT, put("signing", "unknown", value="x"), "not valid"),
    "address of the ledger": (
        "ratchet-ledger-sql",
        put("url", value="sqlite:////tmp/other.db"),
        "ratchet-ledger-sql.url",
    ),
    "keys of the endpoint": ("ratchet-endpoint-local", put("trusted_keys", value=MINE), "trusted_keys"),
    "address of the endpoint": ("ratchet-endpoint-local", put("url", value="http://127.0.0.1:9"), "endpoint-local.url"),
    "keys of tracking": ("ratchet-tracking-mlflow", put("trusted_keys", value=MINE), "trusted_keys"),
    "Python of the trainer": ("ratchet-trainer-local", put("python", value="/srv/python"), "trainer-local.python"),
}


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.parametrize(("slug", "change", "named"), CHANGES.values(), ids=CHANGES)
def test_a_block_that_was_changed_over_the_api_is_refused_by_name(
    slug: str, change: Callable[[dict[str, Any]], object], named: str, stack: Stack
) -> None:
    before = trusted_environment("local").model_dump()
    with changed_block(slug, change):
        with pytest.raises(TrustDiffers, match=named):
            open_environment("local")
        assert trusted_environment("local").model_dump() == before, "a block decides nothing"
        checked = ratchet("trust", "check", "local")
        assert checked.exit_code == 1 and named in checked.stderr
    assert open_environment("local").model_dump() == before


@pytest.mark.stack
@pytest.mark.slow
def test_a_changed_block_stops_runs_and_is_an_alert_until_it_is_as_it_was(stack: Stack) -> None:
    outbox, cause = open_environment("local").outbox(), "local/environment.changed"
    with changed_block("ratchet-endpoint-local", put("trusted_keys", value=MINE)):
        refused = run("rollback/rollback", model="churn", requested_by="dana@example.com", reason="it is worse")
        assert "is not the one of this machine's trust file: ratchet-endpoint-local.trusted_keys" in outcome(refused)
        assert cause in open_causes(outbox, datetime.now(UTC))
        refused_command = ratchet("approvals", "list")
        assert refused_command.exit_code == 1 and "trusted_keys" in refused_command.stderr
        listed = ratchet("alerts", "list")
        assert listed.exit_code == 0 and cause in listed.stdout, "the alert can be read in spite of it"
        assert outcome(run("notify/notify")) == "delivered", "alerts are sent in spite of it"
        assert [each.state for each in outbox.signals(cause)] == ["raised"], "once"
    assert outcome(run("notify/notify")) == "delivered"
    assert [each.state for each in outbox.signals(cause)] == ["raised", "recovered"]


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_key_and_a_policy_of_ones_own_let_nobody_approve_alone(stack: Stack, tmp_path: Path) -> None:
    """The audit's attack: patch keys and policy over Prefect's API, approve "by Max" with a key of one's own."""
    state = stack.state_folder / "guarded"
    guarded = {
        **environment_settings(),
        "approval": {"approvals": 2},
        "ledger": {"adapter": "blocks.database.ledger.SqlLedger", "url": f"sqlite:///{tmp_path}/ledger.db"},
        "signing": {
            **environment_settings()["signing"],
            "decisions_head_file": str(tmp_path / "decisions.head"),
            "records_head_file": str(tmp_path / "records.head"),
        },
    }
    save_settings(guarded, "guarded")
    env, who = trusted_environment("guarded"), "dana@example.com"
    records = env.signing.trusted_record_keys  # the request is theirs, only the decision is forged
    no_heads = {"decisions_head_file": "", "records_head_file": ""}
    mine = signing_in(state).model_copy(update={**no_heads, "trusted_record_keys": records})
    ingest_frame("anchored", customers()[:2000], tmp_path)
    waiting = run("retrain/retrain", model="anchored", parameters=SMALL, requested_by=who, environment="guarded")
    (request,) = env.approvals().open_requests("anchored")

    def attack(data: dict[str, Any]) -> None:
        data["signing"], data["approval"] = mine.model_dump(mode="json"), {"approvals": 1}

    with changed_block(ENVIRONMENT, attack, "guarded"):
        theirs = env.model_copy(update={"signing": mine, "approval": env.approval.model_copy(update={"approvals": 1})})
        decided: Any = {
            "decided_by": "max@example.com",
            "reason": "I say so",
            "channel": "mine",
            "now": datetime.now(UTC),
        }
        submit_decision(theirs, request.id, approved=True, **decided)
        resume_flow_run(waiting.id, run_input={"approve": True, "reviewer": "max@example.com", "reason": "I say so"})
        ended = wait_for_run(waiting.id, until=is_ended, seconds=240)
        assert "is not the one of this machine's trust file" in outcome(ended)
        assert "guarded/environment.changed" in open_causes(env.outbox(), datetime.now(UTC))
    with pytest.raises(Refusal, match="the record of decisions is damaged"):
        verified_chain(open_environment("guarded"))  # with the block as it was, a retried run meets this
    assert env.endpoint().live_version("anchored") is None
    with pytest.raises(Corrupt, match="no pinned key of decisions has signed it"):
        env.effects().deployments("anchored", "guarded")
