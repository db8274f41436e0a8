"""Secrets in every place where users store them: after a whole run with failures, none is found anywhere else."""

import mmap
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from prefect.blocks.notifications import MattermostWebhook
from prefect.blocks.system import Secret

from blocks.notifications.email import SmtpEmail
from blocks.notifications.webhook import SignedWebhook
from local.processes import free_port
from local.stack import Stack
from tests.fakes.receivers import mail_server, web_server
from tests.fixtures import canary_secrets as canaries
from tests.fixtures.hooks import hook, push
from tests.fixtures.ledgers import postgres
from tests.fixtures.support import (
    SMALL,
    approve,
    customers,
    environment_settings,
    ingest_frame,
    outcome,
    run,
    save_settings,
)
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

__all__ = ["postgres"]  # a fixture
MODEL = "hushed"
QUERY = "SELECT * FROM customers"


def found_in(folder: Path, secrets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each secret that a file holds, with the file; databases, logs, results and models alike."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield from ((secret, str(path)) for secret in secrets if content.find(secret.encode()) >= 0)


def shown_by_processes(secrets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each secret that the list of processes shows to every user of the machine."""
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        yield from ((secret, line) for secret in secrets if secret in line)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.heavy)])
def ledger_dump(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[Callable[[], bytes]]:
    """Let the flows store their ledger on SQLite or PostgreSQL; return a function that dumps its whole content."""
    if request.param == "sqlite":
        yield lambda: b"".join(file.read_bytes() for file in stack.state_folder.glob("ledger.db*"))
        return
    url, binaries = request.getfixturevalue("postgres")
    before = environment_settings()
    heads = {f"{name}_head_file": str(tmp_path / f"{name}.head") for name in ("decisions", "records")}
    save_settings(
        {**before, "ledger": {**before["ledger"], "url": f"{url}/postgres"}, "signing": {**before["signing"], **heads}}
    )  # of another chain
    try:
        command = [str(binaries / "pg_dumpall"), "-h", "127.0.0.1", "-p", url.rpartition(":")[2], "-U", "ratchet"]
        yield lambda: subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    finally:
        save_settings(before)


def test_secrets_are_found_nowhere_after_a_run_with_failures(
    stack: Stack, tmp_path: Path, ledger_dump: Callable[[], bytes]
) -> None:
    seen: set[tuple[str, str]] = set()
    before = environment_settings()
    with web_server() as box, mail_server() as mailbox:
        mailbox.answers.append("554 go away")
        box.answers.append(503)
        save_channels(before, box.url, mailbox.port)
        try:
            assert outcome(ingest_frame(MODEL, customers()[:2000], tmp_path)) == "Completed"
            failures = list(refused_sources())
            waiting = run("retrain/retrain", model=MODEL, parameters=SMALL, requested_by="dana@example.com")
            seen.update(shown_by_processes(canaries.ALL))
            assert outcome(approve(waiting)) == "deployed"
            broken = run("retrain/retrain", model=MODEL, parameters={"num_leaves": -1}, requested_by="dana@example.com")
            assert outcome(broken).startswith("Failed")
            wait_for(lambda: box.posts, what="the second attempt at the webhook")
            answers = deliveries(stack)
        finally:
            save_settings(before)
    assert answers == [401, 200]
    assert all(said.startswith("Failed") for said in failures), failures
    assert "block:misspelt: the block's content is not an address" in failures[0]
    assert "reader:***@" in failures[1]
    assert canaries.PARAMETER not in failures[1]
    assert "reader:***@" in failures[2]
    seen.update(shown_by_processes(canaries.ALL))
    seen.update(found_in(stack.state_folder, canaries.ALL))
    of_prefect = (stack.prefect_secret, b64encode(stack.prefect_secret.encode()).decode())
    seen.update(shown_by_processes(of_prefect))
    holders = {str(stack.state_folder / "keys" / "prefect-api"), str(stack.state_folder / "prefect" / "profiles.toml")}
    places = {place for _, place in found_in(stack.state_folder, of_prefect)}
    assert places == holders
    held = ledger_dump()
    assert b"second@example.com" in held, "the approval is in it"
    seen.update((secret, "the ledger") for secret in canaries.ALL if secret.encode() in held)
    assert not seen


def test_this_search_would_find_one(stack: Stack, tmp_path: Path) -> None:
    """Other text is found where it was put: in Prefect's and the ledger's databases, logs and results."""
    assert outcome(run("ingest/ingest", model=MODEL, source=f"/{canaries.PARAMETER}.csv")).startswith("Failed")
    places = {Path(place).suffix for _, place in found_in(stack.state_folder, (canaries.PARAMETER,))}
    assert places & {".db", ".db-wal"}


def save_channels(before: dict[str, Any], url: str, mail_port: int) -> None:
    """Send all alerts of the model to a webhook, an unreachable chat, and a mail server that refuses."""
    SignedWebhook(url=f"{url}/{canaries.ADDRESS}", secret=canaries.SIGNING).save("hushed", overwrite=True)  # type: ignore[arg-type]
    MattermostWebhook(hostname="127.0.0.1", port=free_port(0), token=canaries.CHAT).save("hushed", overwrite=True)  # type: ignore[arg-type]
    SmtpEmail(
        host="127.0.0.1", port=mail_port, security="none", sender="us@example.com", recipients=("you@example.com",),
        user="us", password=canaries.MAIL,  # type: ignore[arg-type]
    ).save("hushed", overwrite=True)  # fmt: skip
    slugs = ("ratchet-signed-webhook", "mattermost-webhook", "ratchet-smtp-email")
    channels = [{"name": slug, "block": f"{slug}/hushed", "min_severity": "info", "models": [MODEL]} for slug in slugs]
    save_settings({**before, "alerts": {"channels": channels}})


def refused_sources() -> Iterator[str]:
    """Read unreachable databases whose passwords are, or should have been, in Secret blocks."""
    nowhere = f"127.0.0.1:{free_port(0)}/crm"
    Secret(value=f"postgresql+psycopg://reader:{canaries.DATABASE}@{nowhere}").save("crm", overwrite=True)  # type: ignore[call-arg]
    Secret(value=f"postgresql:/reader:{canaries.MISSPELT}@{nowhere}").save("misspelt", overwrite=True)  # type: ignore[call-arg]
    for source in ("block:misspelt", f"postgresql://reader:{canaries.PARAMETER}@{nowhere}", "block:crm"):
        yield outcome(run("ingest/ingest", model=MODEL, source=source, query=QUERY))


def deliveries(stack: Stack) -> list[int]:
    """Post a push with a wrong and one with the right signature, and return the statuses of the responses."""
    answers = []
    for secret in ("another-secret-altogether", canaries.IN_ENVIRONMENT["RATCHET_GITHUB_SECRET"]):
        delivery = hook("github", "push", push(), id=str(uuid4()), secret=secret)
        answers.append(
            httpx.post(
                f"{stack.url('gateway')}/hooks/github",
                content=delivery.body,
                headers=list(delivery.headers),
                timeout=60,
            ).status_code
        )
    return answers
