"""Foreign text is only text in every channel, and what nobody sees is shown or refused."""

import io

import pytest

from runtime.foreign_text import (
    Markdown,
    chat_text,
    escape_markdown,
    header_text,
    is_web_address,
    markdown_code,
    markdown_link,
    one_line,
    print_text,
    refuse_hidden_characters,
    refuse_hidden_in_lines,
    slack_text,
    spreadsheet_text,
    terminal_text,
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë Müller 日本 ✅ ⚠️", "Zoë Müller 日本 ✅ ⚠️"),
        ("a\u202etxt", "a\\u202etxt"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\x9bb\x7f", "a\\x9bb\\x7f"),
        ("Ann\u200b\u3164\u034f\ufe0f", "Ann\\u200b\\u3164\\u034f\\ufe0f"),
        ("\U000e0041", "\\U000e0041"),
        ("a\r\nb", "a\\r\\nb"),
    ],
)
def test_what_nobody_sees_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("name", ["Ann\u200b", "A\u202en", "An\n", "A\x1b[1m", "Ann\u3164", "Ann\ufe0f"])
def test_a_name_with_a_character_that_nobody_sees_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"nobody sees: \\"):
        refuse_hidden_characters(name)
    assert refuse_hidden_characters("Zoë O'Neil") == "Zoë O'Neil"


def test_a_reason_may_have_lines_and_no_other_control_character() -> None:
    assert refuse_hidden_in_lines("one\r\n\ttwo") == "one\r\n\ttwo"
    with pytest.raises(ValueError, match="x1b"):
        refuse_hidden_in_lines("one\n\x1b[1A")


def test_text_put_into_markdown_is_escaped_and_markdown_is_not() -> None:
    line = Markdown("**{}** {:,} {}").format("[a](b)", 1234, Markdown("`c`"))
    assert line == "**\\[a\\](b)** 1,234 `c`"
    assert isinstance(line, Markdown)
    assert Markdown("\n").join(["*x*", line]) == f"\\*x\\*\n{line}"
    assert "<b>" + Markdown("y") + "<i>" == "&lt;b&gt;y&lt;i&gt;"
    assert not isinstance(f"{line}", Markdown), "an f-string is plain text, and is escaped where it is used"


@pytest.mark.parametrize(
    "start", ["- a", "+ a", "1. a", "2) a", "# a", "> a", "=== a", "/close", "    a", "| a", "~~~"]
)
def test_text_at_the_start_of_a_line_begins_no_block(start: str) -> None:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(escape_markdown(start))
    assert [each.type for each in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert not escape_markdown("/close").startswith("/"), "GitLab would obey it"


def test_code_and_links_hold_only_what_fits_into_them() -> None:
    assert markdown_code("a_b*c") == "`a_b*c`"
    assert markdown_code("a`b") == "a\\`b"
    assert markdown_code("a|b") == "a&#124;b"
    assert markdown_link("run", "http://127.0.0.1:4200/runs/1") == "[run](<http://127.0.0.1:4200/runs/1>)"
    assert markdown_link("approve", "javascript:alert(1)") == "approve: javascript:alert(1)"
    assert not is_web_address("https://a.b/> [x](http://y)")


def test_a_terminal_gets_lines_and_nothing_that_moves_its_cursor() -> None:
    assert terminal_text("one\r\ntwo\tthree") == "one\ntwo     three"
    assert terminal_text("safe\rEVIL\x1b]8;;http://x\x07link") == "safe\\rEVIL\\x1b]8;;http://x\\x07link"
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_text("é\x1b", file=stream, flush=True)
    assert raw.getvalue() == b"\\xe9\\x1b\n"


def test_chats_get_our_links_and_no_mention_or_markup() -> None:
    text = "<!channel> *x* @here ~y~ http://ours/a_b_c"
    assert slack_text(text) == "&lt;!channel&gt; ∗x∗ @\u200bhere ∼y∼ http://ours/a_b_c"
    assert chat_text(text) == "\\<\\!channel\\> \\*x\\* @\u200bhere \\~y\\~ http://ours/a_b_c"


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "'=1", "-", "﹦1", "﹢1",
                                  "﹣1", "﹫a", "\u200b=1", "\ufeff=1", "\u2060'=1", "\x00=1"])  # fmt: skip
def test_a_formula_is_text_for_a_spreadsheet(cell: str) -> None:
    assert spreadsheet_text(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-5", "+4.2", "-1e-3", "a=b", "", "'quoted'", "{}"])
def test_numbers_and_other_text_stay_as_they_are(cell: str) -> None:
    assert spreadsheet_text(cell) == cell


def test_a_header_is_one_line_of_ascii() -> None:
    assert header_text("Ä\r\nBcc: x@y") == "? Bcc: x@y"
    assert one_line("a" * 10, 5) == "aaaa…"
