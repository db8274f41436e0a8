"""Attacks on approvals: fourteen ways to deploy a model without a valid approval are refused and recorded.

The cases A1 to A14 run over both databases of a ledger, and over each way to decide: the function that all ways call,
the approvals page and the API, by signed-in people.
"""

import html
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from blocks.approvals.base import Approvals
from blocks.approvals.chain import decisions_of, entry_hash, record_from_entry
from blocks.approvals.rows import row_states
from blocks.common.errors import Conflict, Corrupt
from blocks.common.trust import ApprovalSettings
from blocks.database.ledger import SqlLedger
from blocks.database.tables import CHAIN_ENTRIES
from blocks.endpoints.base import GoldenExample
from blocks.records.approvals import ApprovalRequest, ChainEntry, Decision
from blocks.records.people import Person
from blocks.tracking.fake import MODEL_FILE
from flows.approval import FORM_CHANNEL
from ratchet.commands.audit import read_ledger, write_record
from runtime.digests import folder_digest
from runtime.keys import create_key, load_signer
from tasks.approval.requests import submit_decision
from tasks.release.deployment import approved_release
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World, artifact_of, register
from tests.fixtures.approval_requests import TRAINED, evidence, request_over
from tests.fixtures.command_line import ratchet
from tests.fixtures.office import Office, hidden
from tests.fixtures.postgres_server import running_server, server_binaries

GOLDEN = GoldenExample('{"instances": [1]}', "[0.75]")
SECOND = timedelta(seconds=1)


class Denied(Exception):
    """The response of the approvals page when it refused."""


@dataclass
class Scene:
    """Version 1 is deployed, version 2 has an approval request; the ledger is in a real database.

    `way` is how people decide. The clock stands at `now`.
    """

    env: World
    request: ApprovalRequest
    way: str
    office: Office
    now: datetime = NOW

    @property
    def approvals(self) -> Approvals:
        return self.env.approvals()

    @property
    def ledger(self) -> SqlLedger:
        ledger = self.env.ledger()
        assert isinstance(ledger, SqlLedger)
        return ledger

    def say(self, by: str = "max@example.com", approved: bool = True, **changes: Any) -> Decision:
        if self.way != "function" and "channel" not in changes:
            return self.say_signed_in(by, approved, **changes)
        said = {"reason": "it is better", "channel": "terminal", "now": self.now, **changes}
        return submit_decision(
            self.env, said.pop("request_id", self.request.id), approved=approved, decided_by=by, **said
        )

    def say_signed_in(
        self, by: str, approved: bool, request_id: str = "", now: datetime | None = None, reason: str = "it is better"
    ) -> Decision:
        """Sign in as that person and decide, whatever the page shows or hides."""
        self.office.times["now"] = now or self.now
        name = request_id or self.request.id
        digest = self.approvals.get_request(name).digest if request_id else self.request.digest
        sent: dict[str, Any] = {"reason": reason, "digest": digest}
        if self.way == "page":
            browser = self.office.signed_in(by)
            if (listed := browser.get("/approvals")).status_code == 503:
                raise Denied(html.unescape(listed.text))  # of a damaged record no page shows anything to decide
            token = hidden(listed, "/sign-out")["token"]
            sent |= {"token": token, "verdict": "approve" if approved else "reject"}
            answer = browser.post(f"/approvals/{name}", data=sent)
        else:
            path = f"/api/approvals/{name}/decision"
            answer = self.office.client.post(path, json={**sent, "approve": approved}, headers=self.office.token(by))
        if answer.status_code not in {200, 303}:
            assert answer.status_code in {403, 409, 503}
            raise Denied(html.unescape(answer.text))
        (made,) = [each for each in decisions_of(self.approvals.chain_entries(name)) if each.by == by.strip()]
        assert made.authenticated
        return made

    def deploy(self, request: ApprovalRequest | None = None, serving: str = "1") -> None:
        approved_release(self.env, request or self.request, serving, GOLDEN, begun=None, now=self.now)

    def ask(self, **changes: Any) -> ApprovalRequest:
        return self.approvals.add_request(replace(self.request, **changes))

    def tamper(self, *statements: str) -> None:
        """Change rows as the database's owner can, who first removes the triggers that protect them."""
        sqlite = self.ledger.url.get_secret_value().startswith("sqlite")
        name = "ratchet_decision_chain"
        drop = (
            [f"DROP TRIGGER {name}_UPDATE", f"DROP TRIGGER {name}_DELETE"]
            if sqlite
            else [f"DROP TRIGGER {name}_guard ON {name}", "DROP TRIGGER ratchet_requests_guard ON ratchet_requests"]
        )
        drop += ["DROP TRIGGER ratchet_requests_UPDATE"] if sqlite else []
        for statement in (*drop, *statements):
            self.ledger.database().write(lambda connection, it=statement: connection.exec_driver_sql(it))

    def add(self, link: ChainEntry) -> None:
        self.ledger.database().write(lambda connection: connection.execute(insert(CHAIN_ENTRIES), asdict(link)))


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[str, Path]]:
    if (binaries := server_binaries()) is None:
        pytest.skip("no PostgreSQL server here: neither initdb in PATH nor /usr/lib/postgresql")
    with running_server(binaries) as url:
        yield url, binaries


WAYS = [
    pytest.param(
        (database, way),
        id=f"{database}-{way}",
        marks=[] if (database, way) == ("sqlite", "function") else [pytest.mark.slow],
    )
    for database in ("sqlite", "postgresql")
    for way in ("function", "page", "api")
]


@pytest.fixture(params=WAYS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    env = World.at(tmp_path)
    url = f"sqlite:///{tmp_path}/ledger.db"
    database, way = request.param
    if database == "postgresql":
        server, binaries = request.getfixturevalue("postgres")
        name = "t" + str(abs(hash(tmp_path)))
        where = ["-h", "127.0.0.1", "-p", server.rpartition(":")[2], "-U", "ratchet"]
        subprocess.run([str(binaries / "createdb"), *where, name], check=True, timeout=60)
        url = f"{server}/{name}"
    env._adapters["ledger"] = SqlLedger(url=url)
    register(env, {"rooms": 1.0})
    version = register(env, {"rooms": 2.0}).version
    digest = folder_digest(artifact_of(env, version))
    shown = evidence(trained=TRAINED.model_copy(update={"version": version, "model_digest": digest}))
    asked = request_over(shown, authors=("Nia Poe <nia@example.com>",))
    return Scene(env, env.approvals().add_request(asked), way, Office.at(tmp_path, env))


def by_the_requester(it: Scene) -> None:
    it.say(by="dana@example.com")


def by_the_author(it: Scene) -> None:
    it.say(by="nia poe")


def by_the_requester_in_capitals(it: Scene) -> None:
    it.say(by=" Dana+ci@EXAMPLE.com")


def by_an_alias_of_the_requester(it: Scene) -> None:
    it.env.people = {"dana@example.com": Person(aliases=("The Approver",))}
    it.say(by="the approver")


def another_version_than_was_approved(it: Scene) -> None:
    it.say()
    other = evidence(trained=TRAINED.model_copy(update={"version": "3"}))
    it.deploy(it.approvals.add_request(request_over(other)))


def files_swapped_after_the_approval(it: Scene) -> None:
    it.say()
    (artifact_of(it.env, it.request.version) / MODEL_FILE).write_text('{"rooms": -9.0}')
    it.deploy()


def approval_replayed_for_another_request(it: Scene) -> None:
    it.say()
    (link,) = it.approvals.chain_entries(it.request.id)
    other = it.ask(id="price-2-again")
    last = it.approvals.chain_entries()[-1]
    body = link.body.replace(link.request_id, other.id)
    mended = entry_hash(last.number + 1, "decision", other.id, body, last.hash, link.key_id)
    forged = replace(link, number=last.number + 1, request_id=other.id, body=body, previous=last.hash, hash=mended)
    it.add(forged)
    it.deploy(other)


def expired_by_a_second(it: Scene) -> None:
    late = it.ask(id="late", requested_at=NOW - timedelta(days=8), expires_at=NOW - SECOND)
    it.say(request_id=late.id)


def expired_between_approval_and_deployment(it: Scene) -> None:
    soon = it.ask(id="soon", expires_at=NOW + SECOND)
    it.say(request_id=soon.id)
    it.now = soon.expires_at
    it.deploy(soon)


def with_the_clock_moved_back(it: Scene) -> None:
    late = it.ask(id="late", requested_at=NOW - timedelta(days=8), expires_at=NOW - timedelta(days=1))
    it.say(request_id=it.request.id, approved=False)
    it.say(request_id=late.id, now=NOW - timedelta(days=2))


def approver_removed_since(it: Scene) -> None:
    it.env.approval = ApprovalSettings(approvers=("max@example.com", "ann@example.com"))
    it.say()
    it.env.approval = ApprovalSettings(approvers=("ann@example.com",))
    it.deploy()


def approver_lost_the_role_since(it: Scene) -> None:
    it.env.people = {"max@example.com": Person(roles=("risk",))}
    it.env.approval = ApprovalSettings(roles=("risk",))
    it.say()
    it.env.people = {"max@example.com": Person()}
    it.deploy()


def approved_then_rejected(it: Scene) -> None:
    it.say()
    it.say(by="ann@example.com", approved=False)


def rejected_then_approved(it: Scene) -> None:
    it.say(approved=False)
    it.say(by="ann@example.com")


def forged_approver_in_the_form(it: Scene) -> None:
    it.env.approval = ApprovalSettings(require_authentication=True)
    it.say(by="Chief Risk Officer", channel=FORM_CHANNEL)


def run_pushed_past_its_pause(it: Scene) -> None:
    it.deploy()  # what a run does that was resumed, or whose state was set, without a decision


def edited_row(it: Scene) -> None:
    it.say(approved=False)
    yes = """UPDATE ratchet_decision_chain SET body = replace(body, '"approved":false', '"approved":true')"""
    it.tamper(yes)
    it.deploy()


def edited_row_with_its_hash_mended(it: Scene) -> None:
    it.say(approved=False)
    (link,) = it.approvals.chain_entries(it.request.id)
    body = link.body.replace('"approved":false', '"approved":true')
    mended = entry_hash(link.number, "decision", link.request_id, body, link.previous, link.key_id)
    it.tamper(f"UPDATE ratchet_decision_chain SET body = '{body}', hash = '{mended}' WHERE number = {link.number}")
    it.deploy()


def request_changed_after_it_was_decided(it: Scene) -> None:
    it.say()
    it.tamper("UPDATE ratchet_requests SET expires_at = '2099-01-01T00:00:00.000000+00:00'")
    it.deploy()


def rejection_deleted_from_the_end(it: Scene) -> None:
    it.say(approved=False)
    it.tamper("DELETE FROM ratchet_decision_chain WHERE kind = 'decision'")
    it.say(by="ann@example.com")


def rejection_deleted_and_deployed(it: Scene) -> None:
    two = it.ask(id="two", approvals=2)
    it.say(request_id=two.id)
    it.say(request_id=two.id, by="ann@example.com")
    it.say(approved=False)
    it.tamper(f"DELETE FROM ratchet_decision_chain WHERE number = {len(it.approvals.chain_entries())}")
    it.deploy(two)


def signed_with_a_key_that_is_not_pinned(it: Scene) -> None:
    own = Path(it.env.scratch) / "own.pem"
    create_key(own, "ed25519")
    made = Decision(it.request.id, it.request.digest, True, "max@example.com", "it is better", "terminal", NOW)
    it.approvals.record_decision(made, load_signer(own))
    it.deploy()


def one_person_for_two(it: Scene) -> None:
    it.env.people = {"max@example.com": Person(aliases=("Max",))}
    two = it.ask(id="two", approvals=2)
    it.say(request_id=two.id)
    it.say(request_id=two.id, by="Max")
    it.deploy(two)


ATTACKS: dict[str, tuple[Callable[[Scene], None], str]] = {
    "A1 self-approval": (by_the_requester, "the requester may not decide"),
    "A1 approval by the author": (by_the_author, "an author of the code may not decide"),
    "A2 in other letters": (by_the_requester_in_capitals, "the requester may not decide"),
    "A2 under an alias": (by_an_alias_of_the_requester, "the requester may not decide"),
    "A3 another version": (another_version_than_was_approved, "nobody has decided yet"),
    "A4 swapped files": (files_swapped_after_the_approval, "not the approved ones"),
    "A5 replayed": (approval_replayed_for_another_request, "no pinned key of decisions has signed it"),
    "A6 expired by a second": (expired_by_a_second, "the request has expired"),
    "A6 expired since": (expired_between_approval_and_deployment, "the approval has expired"),
    "A7 clock moved back": (with_the_clock_moved_back, "the clock has gone back"),
    "A8 approver removed": (approver_removed_since, "not among the approvers"),
    "A8 role lost": (approver_lost_the_role_since, "has none of the roles"),
    "A9 approve, then reject": (approved_then_rejected, "decided already: approved by max"),
    "A9 reject, then approve": (rejected_then_approved, "decided already: rejected by max"),
    "A10 forged name in the form": (forged_approver_in_the_form, "this person was not authenticated"),
    "A11 state set by hand": (run_pushed_past_its_pause, "nobody has decided yet"),
    "A12 edited row": (edited_row, "content is not that of its hash"),
    "A12 edited row and hash": (edited_row_with_its_hash_mended, "no pinned key of decisions has signed it"),
    "A12 edited request": (request_changed_after_it_was_decided, "was changed after it was added"),
    "A12 another key": (signed_with_a_key_that_is_not_pinned, "no pinned key of decisions has signed it"),
    "A13 cut off, then decided": (rejection_deleted_from_the_end, "Rows were cut off"),
    "A13 cut off, then deployed": (rejection_deleted_and_deployed, "Rows were cut off"),
    "A14 one person as two": (one_person_for_two, "this person has decided under another name"),
}


@pytest.mark.parametrize(("attack", "says"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_on_an_approval_is_refused_and_recorded(
    scene: Scene, attack: Callable[[Scene], None], says: str
) -> None:
    with pytest.raises((Refusal, Conflict, Corrupt, Denied), match=says):
        attack(scene)
    recorded = [link for link in scene.approvals.chain_entries() if link.kind == "refusal"]
    assert len(recorded) == (0 if scene.way == "page" and attack is rejection_deleted_from_the_end else 1)
    assert all(says in link.body for link in recorded)


def test_of_two_approvers_at_once_one_is_recorded_and_the_other_is_told(scene: Scene) -> None:
    def attempt(person: str) -> str:
        try:
            return scene.say(by=person, approved=person.startswith("ann")).by
        except (Conflict, Denied):
            return "refused"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, ["ann@example.com", "max@example.com"]))
    kinds = sorted(link.kind for link in scene.approvals.chain_entries())
    assert (outcomes.count("refused"), kinds) == (1, ["decision", "record", "refusal"])


def test_an_honest_approval_is_deployed_and_the_record_is_sound(scene: Scene) -> None:
    scene.say()
    scene.deploy()
    file = Path(scene.env.scratch).with_name("record.jsonl")
    record = read_ledger(scene.approvals)._replace(rows=row_states(scene.ledger.database()))
    with file.open("w") as lines:
        write_record(record, lines)
    signing = scene.env.signing
    options = ["--file", str(file), "--key", signing.trusted_decision_keys[0], "--head", signing.decisions_head_file,
               "--record-key", signing.trusted_record_keys[0]]  # fmt: skip
    checked = ratchet("audit", "verify", *options)
    assert checked.exit_code == 0 and "valid: 2 links (1 decisions" in checked.stdout
    file.write_text(file.read_text().replace("it is better", "it was better"))
    checked = ratchet("audit", "verify", *options)
    assert checked.exit_code == 1
    assert "INVALID: decision 2 of 2: its content is not that of its hash" in checked.stdout
    assert isinstance(record_from_entry(record.links[1]), Decision)
