"""The audit of the decision record, offline: any single changed row is found and named."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocks.approvals.chain import ChainHead, TrustedKeys, find_first_fault
from blocks.approvals.fake import FakeApprovals
from blocks.common.errors import Corrupt, Rejected
from blocks.common.trust import SigningSettings
from blocks.records.approvals import ApprovalRequest, Decision, RefusedAttempt, Waiver
from ratchet.commands.audit import read_ledger, read_record, verification_text, write_record
from runtime.keys import Keyring
from tests.fixtures.command_line import ratchet
from tests.fixtures.signing_keys import SIGNER, signing_in

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
KEYS: TrustedKeys = {"decisions": Keyring([SIGNER.public_key_line])}


def written(count: int = 4) -> str:
    """Return the record of this many decisions, a waiver and a refusal, as `export` writes it."""
    approvals = FakeApprovals()
    for number in range(count):
        asked = ApprovalRequest(f"churn-{number}", "churn", "local", "1", "d" * 64, "{}", "dana", NOW,
                                NOW + timedelta(days=7), "", authors=("Ünna",), roles=("risk",))  # fmt: skip
        approvals.add_request(asked)
        approvals.record_decision(
            Decision(asked.id, asked.digest, True, "max", "it is “better”", "terminal", NOW), SIGNER
        )
    approvals.record_waiver(
        Waiver("churn", "local", ("auc",), "max", "why", "terminal", NOW, NOW + timedelta(days=1)), SIGNER
    )
    approvals.record_refusal(
        RefusedAttempt("churn-1", "decide", "dana", "terminal", "the requester may not decide", NOW), SIGNER
    )
    lines = io.StringIO()
    write_record(read_ledger(approvals), lines)
    return lines.getvalue()


RECORD = written()


def test_what_is_exported_is_read_back_and_sound() -> None:
    links, requests, *_ = read_record(RECORD.splitlines())
    assert len(links) == 6 and len(requests) == 4
    assert find_first_fault(links, KEYS, requests=requests) is None
    said = verification_text(links, None, ChainHead(6, links[-1].hash))
    assert said.startswith("valid: 6 links (4 decisions, 1 waivers, 1 refusals)")
    assert "WITHOUT an anchored head" in verification_text(links, None, None)


@settings(max_examples=300)
@given(st.integers(0, len(RECORD.encode()) * 8 - 1))
@example(8 * RECORD.encode().index(b'"signature": "') + 8 * 14 + 5)  # a capital letter in a signature, or none
def test_one_flipped_bit_is_found(bit: int) -> None:
    raw = bytearray(RECORD.encode())
    raw[bit // 8] ^= 1 << bit % 8
    try:
        links, requests, *_ = read_record(raw.decode().splitlines())
    except (Corrupt, UnicodeDecodeError):
        return
    whole = read_record(RECORD.splitlines()).links
    head = ChainHead(len(whole), whole[-1].hash)
    same = (links, requests) == read_record(RECORD.splitlines())[
        :2
    ]  # "\u00e9" may also be written "\u00C9": case of an escape
    assert same or find_first_fault(links, KEYS, requests=requests, head=head) is not None


def test_the_first_row_that_is_wrong_is_named() -> None:
    links = read_record(RECORD.splitlines()).links
    changed = [replace(link, body=link.body.replace("max", "eve")) if link.number == 3 else link for link in links]
    fault = find_first_fault(changed, KEYS)
    assert fault is not None and (fault.number, fault.problem) == (
        3, "its content is not that of its hash: it was changed",
    )  # fmt: skip


def test_rows_taken_from_the_middle_or_the_end_are_missed() -> None:
    links = read_record(RECORD.splitlines()).links
    middle = find_first_fault([*links[:2], *links[3:]], KEYS)
    assert middle is not None and middle.problem.startswith("a link is missing: number 4 stands where 3")
    assert find_first_fault(links[:-1], KEYS) is None, "a shorter chain is a chain: hence the anchored head"
    end = find_first_fault(links[:-1], KEYS, head=ChainHead(6, links[-1].hash))
    assert end is not None and "the chain has 5 links" in end.problem


def test_an_empty_keyring_trusts_nobody() -> None:
    links = read_record(RECORD.splitlines()).links
    fault = find_first_fault(links, {"decisions": Keyring([])})
    assert fault is not None and "no pinned key of decisions has signed it" in fault.problem


def test_a_file_is_checked_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"
    file.write_text(RECORD)
    links = read_record(RECORD.splitlines()).links
    command = ["audit", "verify", "--file", str(file), "--key", SIGNER.public_key_line, "--head"]
    assert ratchet(*command, f"6:{links[-1].hash}").exit_code == 0
    wrong = ratchet(*command, f"7:{'0' * 64}")
    assert wrong.exit_code == 1 and "INVALID: decision 7 of 6" in wrong.stdout
    nothing = ratchet("audit", "verify", "--file", "/nosuch")
    assert (nothing.exit_code, nothing.stderr) == (2, "error: --file: there is no file /nosuch\n")
    file.write_text("{]")
    refused = ratchet(*command, "6:0")
    assert refused.exit_code == 2 and "line 1 is not JSON" in refused.stderr


def test_a_crash_between_note_and_commit_is_no_alarm_and_a_missing_row_is(tmp_path: Path) -> None:
    signing, approvals = signing_in(tmp_path), FakeApprovals()
    signer = signing.signer("decisions")
    refused = RefusedAttempt("", "deploy", "", "", "no", NOW)
    first = approvals.record_refusal(refused, signer)
    note = Path(signing.decisions_head_file)
    content = json.loads(note.read_text())
    content["pending"] = {"number": 2, "hash": "f" * 64}  # signed, and then the process died
    note.write_text(json.dumps(content))
    second = approvals.record_refusal(refused, signer)
    assert (second.number, json.loads(note.read_text())) == (
        2,
        {"head": {"number": 2, "hash": second.hash}, "pending": None},
    )
    approvals._links.pop()
    with pytest.raises(Corrupt, match="decision 2 is missing"):
        approvals.record_refusal(refused, signer)
    approvals._links[:] = [first, first]
    with pytest.raises(Corrupt, match="decision 2 has the hash"):
        approvals.record_refusal(refused, signer)


def test_a_key_that_others_may_read_signs_nothing(tmp_path: Path) -> None:
    signing = signing_in(tmp_path)
    file = Path(signing.decisions_key)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(Rejected, match="chmod 600"):
        signing.signer("decisions")


@pytest.mark.parametrize(("purpose", "where"), [("decisions", "where people decide"), ("models", "that trains models")])
def test_a_missing_key_is_reported_with_the_machine_that_has_it(purpose: str, where: str, tmp_path: Path) -> None:
    signing = SigningSettings(**{f"{purpose}_key": str(tmp_path / "none.pem")})
    with pytest.raises(Rejected, match=rf"Only the machine {where} has this key\. On a laptop `make up` creates it\."):
        signing.signer(purpose)
