"""Text of suppliers, callers and authors is only text: in Markdown, pages, terminals, chats, mail and spreadsheets.

The producers are found in the code: a new one that does not use the escapers fails here without being named.
"""

import ast
import email
import importlib
import inspect
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any, get_type_hints

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from prefect.blocks import notifications
from prefect.blocks.abstract import NotificationBlock
from typer.testing import CliRunner

from blocks.notifications import sns
from blocks.notifications.base import CHAT_FORMATS, Notification
from blocks.notifications.email import SmtpEmail
from ratchet.commands.group import Group
from runtime.foreign_text import chat_text, hidden_characters, html_text, log_visible_text, slack_text
from tasks.evidence.rules.page import evidence_html
from tasks.notification.rules.story import message_body
from tasks.shared import reports
from tasks.shared.rules.figures import png_url
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.run_outcomes import outcome_message, run_name
from tests.fixtures.foreign_text import HOSTILE, PLAIN, filled
from tests.structure import python_files

AT = datetime(2026, 1, 31, 8, tzinfo=UTC)
every_attack = pytest.mark.parametrize("attack", HOSTILE)

WRITTEN_BY_US = {"limits_text"}
"""Arguments that are Markdown of the team's own repository: CARD.md, which reviewers have read."""
NEEDS_AN_ENVIRONMENT = {"tasks.retraining.tasks.decide_on_alert", "tasks.validation.tasks.compare_with_parent_tier"}
"""Functions that return what one of the others has made."""


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for module, path in python_files().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                yield f"{module}.{node.name}", node


def markdown_producers() -> list[str]:
    """Return all public functions that return Markdown, by their type or by their name."""
    return [
        name
        for name, node in functions()
        if not node.name.startswith("_")
        and not name.startswith("runtime.foreign_text.")
        and name not in NEEDS_AN_ENVIRONMENT
        and (returned := ast.unparse(node.returns) if node.returns else "")
        and ("Markdown" in returned or (node.name.endswith("_markdown") and returned == "str"))
        and node.args.args + node.args.kwonlyargs
    ]


def produced(name: str, text: str) -> str:
    """Return what a producer makes of records in which every text is `text`."""
    module, _, function_name = name.rpartition(".")
    function: Callable[..., Any] = getattr(importlib.import_module(module), function_name)
    hints = get_type_hints(function, include_extras=True)
    given = {
        each: filled(hints[each], PLAIN if each in WRITTEN_BY_US else text)
        for each in inspect.signature(function).parameters
    }
    return str(function(**given))


def tokens(markdown: str) -> Iterator[Token]:
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for token in reader.parse(markdown):
        yield token
        yield from token.children or ()


def structure(markdown: str) -> Counter[str]:
    """Return how often each kind of markup occurs; a code span may become text, and never the other way round."""
    return Counter(each.type for each in tokens(markdown) if each.type not in {"text", "text_special", "code_inline"})


def outside_code(markdown: str) -> str:
    return re.sub(r"^(`{3,}).*?^\1$|`[^`\n]+`", "", markdown, flags=re.DOTALL | re.MULTILINE)


def test_there_are_producers_of_every_stage() -> None:
    assert len(markdown_producers()) > 12


@every_attack
@pytest.mark.parametrize("name", markdown_producers())
def test_no_foreign_text_becomes_markdown(name: str, attack: str) -> None:
    plain, attacked = produced(name, PLAIN), produced(name, HOSTILE[attack])
    assert structure(attacked) == structure(plain)
    assert hidden_characters(attacked.replace("\n", "")) == ""
    bare = outside_code(attacked)
    assert not re.search(r"(?:https?|ftp)://|www\.|[\w.+-]+@\w", bare, re.IGNORECASE), (
        "a reader would make links of these"
    )
    assert not re.search(r"^\s*/\w", bare, re.MULTILINE), "a git host obeys lines that begin with a slash"


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a function with one of these names, with the module in which it stands."""
    for module, path in python_files().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in names:
                    yield module, node


def test_only_constants_of_the_program_are_declared_markdown() -> None:
    made = [
        (module, call.lineno)
        for module, call in calls("Markdown")
        if module != "runtime.foreign_text" and not all(isinstance(each, ast.Constant) for each in call.args)
    ]
    assert made == [], "write Markdown('… {}').format(value), which escapes the value"


def test_markdown_is_read_back_only_where_it_was_written() -> None:
    read = {module for module, _ in calls("stored_markdown")}
    assert read == {"tasks.monitoring.reporting", "tasks.validation.tasks", "tasks.evidence.rules.page"}


PROTOCOLS = {"runtime.predict", "runtime.entry", "runtime.warm_client", "ratchet.commands.audit"}
"""Modules that print JSON for a program, or their own arguments before anything of ours can be imported."""


def test_every_line_on_a_terminal_comes_from_the_printer() -> None:
    printing = {module for module, _ in calls("print", "echo", "secho", "writelines")} - {"runtime.foreign_text"}
    assert printing - PROTOCOLS == {"local.demo"}, "print by runtime.foreign_text.print_text"
    for module, call in calls("print"):
        if module == "local.demo":  # rich's console: its markup, too, is for our constants alone
            shown = call.args[0]
            plain = any(each.arg == "markup" for each in call.keywords) or isinstance(shown, ast.Constant | ast.Name)
            assert plain or "time.monotonic()" in ast.unparse(shown) or "ours else" in ast.unparse(shown), ast.unparse(
                call
            )


@every_attack
def test_artifacts_show_plain_text_as_it_is(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    for kind in ("markdown", "image", "table"):
        monkeypatch.setattr(reports.prefect_artifacts, f"create_{kind}_artifact", lambda **given: made.append(given))
    text: Any = HOSTILE[attack]
    reports.create_markdown_artifact(key="it", markdown=text, description=text)
    reports.create_image_artifact(key="it", image_url=png_url(b""), description=text)
    reports.create_link_artifact(key="it", link=text, link_text=text, description=text)
    reports.create_table_artifact(key="it", table=[{text: text}], description=text)
    assert len(made) == 4
    for each in made:
        for markdown in (each.get("markdown", ""), each["description"]):
            assert set(structure(markdown)) <= {"paragraph_open", "inline", "paragraph_close"}
    assert hidden_characters(str(made[3]["table"])) == ""


def test_an_image_of_another_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no PNG of ours"):
        reports.create_image_artifact(key="it", image_url="https://evil.example/x.png")


@every_attack
def test_a_command_prints_no_control_character(attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    group = Group("a group")
    group.command("show")(lambda: HOSTILE[attack])

    def fail() -> None:
        raise Refusal("it is wrong", where=HOSTILE[attack], remedy=HOSTILE[attack])

    group.command("fail")(fail)
    for command in ("show", "fail"):
        result = CliRunner().invoke(group, [command])
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", result.output) is None
        assert hidden_characters(result.output.replace("\n", "")) == ""


@every_attack
def test_a_log_line_has_no_control_character(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factory = logging.getLogRecordFactory()
    stream = io.StringIO()
    logger, handler = logging.Logger("foreign"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        log_visible_text()
        try:
            raise ValueError(HOSTILE[attack])
        except ValueError:
            logger.exception("failed: %s", HOSTILE[attack])
    finally:
        logging.setLogRecordFactory(factory)
    assert hidden_characters(stream.getvalue().replace("\n", "")) == ""
    assert "Traceback" in stream.getvalue()


@every_attack
def test_state_and_name_of_a_run_are_one_visible_line(attack: str) -> None:
    for text in (outcome_message("held", HOSTILE[attack]), run_name("churn", HOSTILE[attack])):
        assert hidden_characters(text) == ""


@every_attack
def test_an_alert_mentions_nobody_and_links_to_our_pages_alone(attack: str) -> None:
    text, ours = HOSTILE[attack], "https://ratchet.example/run/a_b"
    body = message_body(text, {"run": ours}, owner=text, cause="churn", since=AT, occurrences=2, is_open=True)
    assert hidden_characters(body.replace("\n", "")) == ""
    assert re.findall(r"\w+://\S+|www\.\S+", body) == [ours]
    slack = slack_text(body)
    assert re.findall(r"https?://\S+", slack) == [ours]
    assert not re.search(r"<|>|&(?!amp;|lt;|gt;)|[*`~]|@(?!\u200b)", slack)
    chat = chat_text(body)
    assert not re.search(r"(?<!\\)[*`~<>|\[\]#!]|@(?!\u200b)", chat.replace(ours, ""))


@every_attack
def test_mail_and_sns_get_headers_of_one_line(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HOSTILE[attack]
    notice = Notification(text, text, text, "critical", text, "new")
    sent: list[bytes] = []

    class Server:
        """Takes a mail as an SMTP server does."""

        def __enter__(self) -> "Server":
            return self

        def __exit__(self, *_: object) -> None: ...

        def send_message(self, mail: EmailMessage) -> None:
            sent.append(mail.as_bytes())

    monkeypatch.setattr(SmtpEmail, "_connected", lambda _: Server())
    SmtpEmail(host="localhost", sender="ratchet@example.com", recipients=("team@example.com",)).deliver(notice)
    mail = email.message_from_bytes(sent[0], policy=policy.default)
    assert mail["To"] == "team@example.com" and mail["Bcc"] is None
    assert mail.get_content_type() == "text/plain"
    assert all(hidden_characters(str(value)) == "" for value in mail.values())
    assert hidden_characters(mail.get_content().replace("\n", "")) == ""
    assert re.fullmatch(r"[ -~]{1,99}", sns._subject(text))


def test_each_kind_of_notification_block_has_its_format() -> None:
    """A block that Prefect adds needs a decision: which markup does its receiver read?"""
    plain = {"pager-duty-webhook", "twilio-sms", "opsgenie-webhook", "custom-webhook"}
    blocks = [
        each for each in vars(notifications).values() if isinstance(each, type) and issubclass(each, NotificationBlock)
    ]
    slugs = {
        each.get_block_type_slug()
        for each in blocks
        if not inspect.isabstract(each)
        and each.__module__ == notifications.__name__
        and not each.__name__.startswith(("Abstract", "Apprise"))
    }
    assert slugs == {*CHAT_FORMATS, *plain}


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[f"{tag} {sorted(name for name, _ in attrs)}"] += 1


def evidence_page(text: str) -> str:
    hints = get_type_hints(evidence_html)
    return evidence_html(filled(hints["evidence"], text), {"card.md": text.encode()}, [
        {"by": text, "approved": True, "at": text, "reason": text, "channel": text, "authenticated": False}
    ])  # fmt: skip


@every_attack
def test_a_page_has_no_element_of_foreign_text(attack: str) -> None:
    text = HOSTILE[attack]
    assert Elements(evidence_page(text)).found == Elements(evidence_page(PLAIN)).found
    assert hidden_characters(re.sub(r"[\n\t]", "", evidence_page(text))) == ""
    assert Elements(f"<p title='{html_text(text)}'>{html_text(text)}").found == Elements("<p title=''>").found
