"""Signatures of webhooks, the fuzz list W1 to W27 as a table: the response, the stored deliveries, the started runs."""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from deployments.secret_store import SecretStore
from services.gateway.app import create_app
from services.gateway.ingest import INVALID_SIGNATURE_RESPONSE
from services.gateway.limits import DISCARDED_BYTES, RequestLimits
from services.gateway.rules.changes import MAX_BODY_BYTES
from tests.fixtures.gateway import PATIENT, Gateway, forgeries
from tests.fixtures.hooks import (
    ANOTHER,
    GENUINE,
    NOW,
    OLD_SECRET,
    SECRET,
    VARIABLES,
    ZEROS,
    Hook,
    as_bytes,
    gitlab_push,
    hook,
    mac,
    push,
    standard,
    triggers,
)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.mark.parametrize("genuine", GENUINE.values(), ids=GENUINE)
def test_a_genuine_push_is_accepted_once_it_is_in_the_inbox(gateway: Gateway, genuine: Any) -> None:
    (answer,) = gateway.send(genuine())
    assert answer.status_code == 202, answer.text
    assert gateway.waiting == [answer.json()["delivery_id"]]
    (turn,) = gateway.inbox.pending_attempts()
    assert (turn.delivery.repository, turn.delivery.ref, turn.delivery.commit) == ("acme/models", "main", "2" * 40)


@pytest.mark.parametrize("seconds", [-300, 300], ids=["just not too old", "just not too far ahead"])
def test_a_signed_time_may_lie_five_minutes_off(gateway: Gateway, seconds: int) -> None:
    (answer,) = gateway.send(standard(gitlab_push(), at=NOW + seconds))
    assert answer.status_code == 202, answer.text


G = GENUINE["github"]()
FORGED: dict[str, Hook] = {
    "W1 no signature": G.but(x_hub_signature_256=None),
    "W2 another algorithm": G.but(x_hub_signature_256="sha1=" + mac(G.body)[:40]),
    "W2 the older header alone": G.but(x_hub_signature_256=None, x_hub_signature="sha1=" + "0" * 40),
    "W3 empty hex": G.but(x_hub_signature_256="sha256="),
    "W3 empty": G.but(x_hub_signature_256=""),
    "W4 upper case": G.but(x_hub_signature_256="sha256=" + mac(G.body).upper()),
    "W5 63 digits": G.but(x_hub_signature_256="sha256=" + mac(G.body)[:63]),
    "W5 65 digits": G.but(x_hub_signature_256="sha256=" + mac(G.body) + "0"),
    "W6 not ASCII": G.but(x_hub_signature_256="sha256=é".encode("latin-1") + b"\xff" * 20),
    "W7 two headers, one right": G.and_also("x-hub-signature-256", "sha256=" + "0" * 64),
    "W7 the right one twice": G.and_also("x-hub-signature-256", "sha256=" + mac(G.body)),
    "W8 of re-serialised JSON": replace(G, body=json.dumps(json.loads(G.body), indent=1).encode()),
    "W9 over another secret": hook("github", "push", push(), secret=ANOTHER),
    "W9 over the empty secret": hook("github", "push", push(), secret=""),
    "gitlab: another token": hook("gitlab", "Push Hook", gitlab_push(), secret=SECRET + "x"),
    "gitlab: no token": hook("gitlab", "Push Hook", gitlab_push()).but(x_gitlab_token=None),
    "gitlab: the signing token in clear": hook("gitlab", "Push Hook", gitlab_push(), secret=VARIABLES["HOOK_SIGNING"]),
    "gitlab: token right, signature wrong": hook("gitlab", "Push Hook", gitlab_push()).but(
        webhook_id="d-1", webhook_timestamp=str(NOW), webhook_signature="v1,AAAA"
    ),
    "W15 301 s old": standard(gitlab_push(), at=NOW - 301),
    "W16 301 s ahead": standard(gitlab_push(), at=NOW + 301),
    "W17 time in words": standard(gitlab_push(), at="yesterday"),
    "W17 negative time": standard(gitlab_push(), at="-5"),
    "W17 endless time": standard(gitlab_push(), at="9" * 400),
    "signed over another id": standard(gitlab_push()).but(webhook_id="d-2"),
    "signed by another token": standard(gitlab_push(), token="whsec_" + "QUFB" * 11),
    "bitbucket: none": GENUINE["bitbucket"]().but(x_hub_signature=None),
    "gitea: with a prefix": GENUINE["gitea"]().but(x_gitea_signature="sha256=" + mac(as_bytes(push()))),
    "gitea: by the header of GitHub": GENUINE["gitea"]().but(x_gitea_signature=None, x_hub_signature_256="sha256=" + mac(as_bytes(push()))),
}  # fmt: skip


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forgery_learns_nothing_stores_nothing_and_starts_nothing(gateway: Gateway, forged: Hook) -> None:
    (answer,) = gateway.send(forged)
    assert (answer.status_code, answer.json()) == (401, INVALID_SIGNATURE_RESPONSE.content())
    assert gateway.inbox.delivery_statuses() == ()
    assert [note.kind for note in gateway.inbox.notes()] == ["invalid signature"]


def test_without_a_configured_secret_everything_is_refused() -> None:
    for variables in ({}, {"HOOK": "short"}, {"HOOK": ""}):
        bare = Gateway(variables)
        secret = variables.get("HOOK", "")
        answers = bare.send(
            hook("github", "push", push(), secret=secret), hook("gitlab", "Push Hook", gitlab_push(), secret=secret)
        )
        assert [answer.status_code for answer in answers] == [401, 401]
        assert bare.inbox.delivery_statuses() == ()


def test_forgeries_without_end_leave_a_few_notes(gateway: Gateway) -> None:
    forged = G.but(x_hub_signature_256=None)
    gateway.send(*[forged] * 50)
    assert len(gateway.inbox.notes()) == 1
    gateway.at += 59.9
    gateway.send(forged)
    assert len(gateway.inbox.notes()) == 1, "one a minute"
    gateway.at += 0.1
    gateway.send(forged)
    assert len(gateway.inbox.notes()) == 2


def test_w10_the_secret_of_before_counts_while_it_is_being_replaced(gateway: Gateway) -> None:
    (answer,) = gateway.send(hook("github", "push", push(), secret=OLD_SECRET))
    assert answer.status_code == 202


def test_w11_a_repeat_is_answered_well_and_starts_nothing_more(gateway: Gateway) -> None:
    first, second = gateway.send(G, G)
    assert (first.status_code, second.status_code, second.json()["outcome"]) == (202, 200, "repeated")
    assert gateway.waiting == ["github:d-1"]


def test_w12_an_id_with_another_body_is_refused_and_noted(gateway: Gateway) -> None:
    _, second = gateway.send(G, hook("github", "push", push(after="3" * 40)))
    assert second.status_code == 409
    assert [note.kind for note in gateway.inbox.notes()] == ["altered"]
    assert [turn.delivery.commit for turn in gateway.inbox.pending_attempts()] == ["2" * 40]


def test_w13_a_body_under_a_second_id_starts_nothing_where_the_id_is_not_signed(gateway: Gateway) -> None:
    _, replay = gateway.send(G, GENUINE["github"]("d-2"))
    assert (replay.status_code, replay.json()["outcome"]) == (200, "ignored")
    one, two = gateway.send(GENUINE["gitlab signed"]("s-1"), GENUINE["gitlab signed"]("s-2"))
    assert (one.status_code, two.status_code) == (202, 202), "a signed id tells two equal pushes apart"
    assert gateway.waiting == ["github:d-1", "gitlab:s-1", "gitlab:s-2"]


@pytest.mark.parametrize(
    "spoilt",
    [G.but(x_github_delivery=None), G.but(x_github_delivery=""), G.but(x_github_delivery="a b"),
     G.but(x_github_delivery=b"\xff\xfe"), G.and_also("x-github-delivery", "d-2"), G.but(x_github_delivery="x" * 201),
     G.but(x_github_event=None)],
    ids=["none", "empty", "a space", "no ASCII", "two", "too long", "no event"],
)  # fmt: skip
def test_w14_without_a_plain_id_and_event_nothing_is_taken(gateway: Gateway, spoilt: Hook) -> None:
    (answer,) = gateway.send(spoilt)
    assert answer.status_code == 400
    assert gateway.inbox.delivery_statuses() == ()
    assert [note.kind for note in gateway.inbox.notes()] == ["unreadable"]


def test_w18_a_body_of_one_byte_too_many_is_refused_and_one_of_the_limit_is_read(gateway: Gateway) -> None:
    filler = 1_048_576 - len(as_bytes(push(filler="")))
    whole = hook("github", "push", push(filler="x" * filler))
    more = hook("github", "push", push(filler="x" * (filler + 1)), id="d-2")
    assert (len(whole.body), len(more.body)) == (1_048_576, 1_048_577)
    assert [answer.status_code for answer in gateway.send(whole, more)] == [202, 413]
    assert gateway.waiting == ["github:d-1"]


def test_w19_a_compressed_body_is_refused_though_its_signature_is_right(gateway: Gateway) -> None:
    packed = hook("github", "push", gzip.compress(G.body))
    first, second = gateway.send(packed.but(content_encoding="gzip"), packed)
    assert (first.status_code, second.status_code) == (415, 400)
    assert gateway.inbox.delivery_statuses() == ()


def streamed(given: Hook, chunks: Callable[[], AsyncIterator[bytes]]) -> httpx.Request:
    return httpx.Request("POST", "http://gateway/hooks/github", content=chunks(), headers=given.raw)


def test_w20_a_body_in_chunks_without_a_length_is_read_and_counted(gateway: Gateway) -> None:
    async def in_parts() -> AsyncIterator[bytes]:
        for start in range(0, len(G.body), 100):
            yield G.body[start : start + 100]

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65_536

    whole, large = gateway.send(streamed(G, in_parts), streamed(G, endless))
    assert (whole.status_code, large.status_code) == (202, 413)


def test_w21_a_slow_body_is_cut() -> None:
    gateway = Gateway(limits=replace(PATIENT, body_seconds=0.3))

    async def drops() -> AsyncIterator[bytes]:
        while True:  # never ends: reading it to its end would take for ever
            yield b" "
            await asyncio.sleep(0.05)

    (answer,) = gateway.send(streamed(G, drops))
    assert answer.status_code == 408
    assert gateway.inbox.delivery_statuses() == ()


PIECE = 262_144


def large(size: int, *, id: str = "d-1") -> Hook:
    """Return a genuine push whose body has that many bytes."""
    return hook("github", "push", push(filler="x" * (size - len(as_bytes(push(filler=""))))), id=id)


@dataclass
class Sent:
    """A delivery that is sent in pieces; `taken` counts the bytes that the gateway asked for."""

    hook: Hook
    body: bytes = b""
    taken: int = 0
    before_last: Callable[[], Awaitable[object]] | None = None

    @property
    def request(self) -> httpx.Request:
        async def pieces() -> AsyncIterator[bytes]:
            body = self.body or self.hook.body
            for start in range(0, len(body), PIECE):
                if self.before_last and start + PIECE >= len(body):
                    await self.before_last()
                self.taken += len(body[start : start + PIECE])
                yield body[start : start + PIECE]

        return streamed(self.hook, pieces)


def test_a_body_of_the_size_that_github_sends_is_read_by_default() -> None:
    gateway = Gateway(limits=RequestLimits(body_seconds=3_600, inbox_seconds=3_600))
    assert RequestLimits().body_bytes == MAX_BODY_BYTES == 25 * 1024**2
    answers = gateway.send(Sent(large(MAX_BODY_BYTES)).request, Sent(large(MAX_BODY_BYTES + 1, id="d-2")).request)
    assert [answer.status_code for answer in answers] == [202, 413]
    assert gateway.waiting == ["github:d-1"]


UNSIGNED = {
    "no signature": lambda given: given.but(x_hub_signature_256=None),
    "half a signature": lambda given: given.but(x_hub_signature_256="sha256=abc"),
    "a token that is wrong": lambda given: replace(hook("gitlab", "Push Hook", b"", secret=ANOTHER), body=given.body),
    "a time long ago": lambda given: replace(standard(gitlab_push(), at=NOW - 301), body=given.body),
}


@pytest.mark.parametrize("change", UNSIGNED.values(), ids=UNSIGNED)
def test_a_large_body_without_a_possible_signature_is_not_read_to_its_end(change: Callable[[Hook], Hook]) -> None:
    gateway = Gateway(limits=RequestLimits(body_seconds=3_600, inbox_seconds=3_600))
    sent = Sent(change(large(16 * 1024**2)))
    request = sent.request
    request.url = httpx.URL(f"http://gateway/hooks/{sent.hook.sender}")
    (answer,) = gateway.send(request)
    assert (answer.status_code, answer.json()) == (401, INVALID_SIGNATURE_RESPONSE.content())
    assert sent.taken <= DISCARDED_BYTES + PIECE
    assert answer.headers["connection"] == "close"


def test_large_bodies_have_bounded_memory_together_and_small_ones_are_read_beside_them() -> None:
    limits = RequestLimits(
        body_bytes=4 * 1024**2, body_seconds=3_600, inbox_seconds=3_600, large_bodies_bytes=5 * 1024**2
    )
    gateway = Gateway(limits=limits)
    waiting, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        waiting.set()
        await done.wait()

    async def together() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app)) as client:
            forged = Sent(large(3 * 1024**2).but(x_hub_signature_256="sha256=" + "0" * 64), before_last=hold)
            first = asyncio.create_task(client.send(forged.request))
            await waiting.wait()
            second = await client.send(Sent(large(3 * 1024**2, id="d-2")).request)
            small = await client.send(large(1024**2, id="d-3").request)
            done.set()
            statuses = [(await first).status_code, second.status_code, small.status_code]
            return [*statuses, (await client.send(Sent(large(3 * 1024**2, id="d-4")).request)).status_code]

    assert asyncio.run(together()) == [401, 503, 202, 202], "a refused body gives its memory back"
    assert gateway.waiting == ["github:d-3", "github:d-4"]


def test_a_body_that_is_cut_leaves_a_note_that_names_the_delivery_and_the_remedy() -> None:
    gateway = Gateway(limits=replace(PATIENT, body_bytes=1_000))
    gateway.send(*[large(2_000)] * 3)
    (note,) = gateway.inbox.notes()
    assert (note.subject_id, note.kind) == ("github:d-1", "cut")
    for part in ("larger than 1,000 bytes", "gateway missed", "--max-bytes", "from 127.0.0.1"):
        assert part in note.text
    gateway.at += 60
    gateway.send(large(2_000))
    assert len(gateway.inbox.notes()) == 2, "one a minute"
    slow = Gateway(limits=replace(PATIENT, body_seconds=0.01))

    async def never() -> None:
        await asyncio.Event().wait()

    (answer,) = slow.send(Sent(large(2_000), before_last=never).request)
    assert answer.status_code == 408
    assert [note.kind for note in slow.inbox.notes()] == ["cut"]


UNREADABLE = {
    "W22 invalid UTF-8": b'{"ref": "\xff\xfe"}',
    "W22 UTF-16": json.dumps(push()).encode("utf-16"),
    "W23 depth 200,000": b"[" * 200_000,
    "W23 depth in an object": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "W23 depth 65": b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    "W24 5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "W24 1e999": b'{"a": 1e999}',
    "W24 a long decimal": b'{"a": 0.' + b"1" * 500_000 + b"}",
    "W25 NaN": b'{"a": NaN}',
    "W25 Infinity": b'{"a": -Infinity}',
    "W25 a key twice": json.dumps(push())[:-1].encode() + b', "after": "' + b"3" * 40 + b'"}',
    "W25 a key twice, deeper": b'{"repository": {"full_name": "acme/models", "full_name": "evil/x"}}',
    "a list": b"[]",
    "text": b'"push"',
    "nothing": b"",
    "two documents": b"{} {}",
    "a BOM": b"\xef\xbb\xbf{}",
    "a form": b"payload=%7B%7D",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_in_one_way_only_is_refused(gateway: Gateway, body: bytes) -> None:
    (answer,) = gateway.send(hook("github", "push", body))
    assert answer.status_code == 400, answer.text
    assert gateway.inbox.delivery_statuses() == ()
    assert [note.kind for note in gateway.inbox.notes()] == ["unreadable"]


def test_a_form_is_refused_with_the_remedy(gateway: Gateway) -> None:
    (answer,) = gateway.send(G.but(content_type="application/x-www-form-urlencoded"))
    assert answer.status_code == 415
    assert "application/json" in answer.json()["reason"]


IGNORED = {
    "W26 another repository": ("push", push(repository={"full_name": "acme/other"})),
    "W26 a fork": ("push", push(repository={"full_name": "eve/models"})),
    "W26 another case": ("push", push(repository={"full_name": "Acme/Models"})),
    "W26 a name with dots": ("push", push(repository={"full_name": "acme/../models"})),
    "W26 a name with a newline": ("push", push(repository={"full_name": "acme/models\n"})),
    "W26 no repository": ("push", push(repository=None)),
    "W27 a newline after the branch": ("push", push(ref="refs/heads/main\n")),
    "W27 a tag called main": ("push", push(ref="refs/tags/main")),
    "W27 a branch that does not count": ("push", push(ref="refs/heads/feature")),
    "W27 a branch below main": ("push", push(ref="refs/heads/main/x")),
    "W27 a branch in another script": ("push", push(ref="refs/heads/mаin")),
    "W27 another kind of ref": ("push", push(ref="refs/pull/1/head")),
    "W27 a deleted branch": ("push", push(after=ZEROS)),
    "a short commit": ("push", push(after="2222222")),
    "a commit in upper case": ("push", push(after="A" * 40)),
    "a commit that is an option": ("push", push(after="--upload-pack=x")),
    "a commit that is a number": ("push", push(after=2)),
    "an unknown event": ("star", {"action": "created"}),
    "a ping": ("ping", {"zen": "Keep it logically awesome.", "hook_id": 1}),
    "a pull request that is open": ("pull_request", {"action": "opened", "repository": {"full_name": "acme/models"},
                                                     "pull_request": {"merged": False, "base": {"ref": "main"}}}),
    "an empty object": ("push", {}),
}  # fmt: skip


@pytest.mark.parametrize(("event", "body"), IGNORED.values(), ids=IGNORED)
def test_what_starts_nothing_is_answered_well_and_listed_with_its_reason(
    gateway: Gateway, event: str, body: Any
) -> None:
    (answer,) = gateway.send(hook("github", event, body))
    assert answer.status_code == 200, answer.text
    assert answer.json()["outcome"] in {"ignored", "refused"}
    assert gateway.waiting == []
    (entry,) = gateway.inbox.delivery_statuses()
    assert entry.outcome is not None
    assert len(entry.outcome.reason) > 5


def test_an_inbox_that_cannot_store_is_no_acknowledgement(gateway: Gateway) -> None:
    gateway.inbox.fail_writes = 1
    first, again = gateway.send(G, G)
    assert (first.status_code, first.headers["retry-after"]) == (503, "30")
    assert again.status_code == 202


def test_a_block_that_cannot_be_read_is_told_apart_from_none() -> None:
    def away(_: str) -> str:
        raise OSError("Prefect is away")

    def none(_: str) -> str:
        raise ValueError("Unable to find block document")

    rules = triggers("senders: {github: {secrets: [block:hook]}}\nrepositories: []\n")
    for block, status in ((away, 503), (none, 401), (lambda _: SECRET, 200)):
        gateway = Gateway()
        gateway.app = create_app(gateway.inbox, rules, SecretStore({}, block), PATIENT, addresses=["http://gateway"])
        assert [answer.status_code for answer in gateway.send(G)] == [status]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/hooks/github", 405),
        ("POST", "/hooks/svn", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/ping", 200),
    ],
)
def test_there_is_nothing_else_to_call(gateway: Gateway, method: str, path: str, status: int) -> None:
    (answer,) = gateway.send(httpx.Request(method, f"http://gateway{path}"))
    assert answer.status_code == status


def test_of_two_thousand_random_mutations_none_is_accepted(gateway: Gateway, caplog: Any) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    answers = gateway.send(*forgeries(2_000, seed))
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.content for answer in answers} == {answers[0].content}
    assert gateway.inbox.delivery_statuses() == ()
    assert "an error of ours" not in caplog.text
