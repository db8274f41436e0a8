"""Text from elsewhere, written so that it is only text: one escaper for each channel.

Foreign is what this project did not write itself: values, column and file names, sources, names of people, reasons,
branches, request ids, errors of other programs. `visible` shows characters that a reader would not see, in every
channel.
Markdown is a type: what is put into it by `format` or `join` is escaped, unless it is Markdown itself.
"""

import html
import logging
import re
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterable
from string import Formatter
from typing import Any, TextIO

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0e\U000e0000-\U000e0fff]"
    "|(?<![\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff])\ufe0f"
)
"""Characters that Unicode calls letters, marks or symbols, and that show nothing; U+FE0F only colours a symbol."""
_LINE_SPACES = str.maketrans("\n\t", "  ")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: object, keep: str = "") -> str:
    r"""Return text whose control and invisible characters are shown as `\x1b` or `\u202e`, except those of `keep`.

    So are spaces that are not U+0020.
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join(
        c if c in keep or c == " " or not (_is_hidden(c) or c.isspace()) else _code_of(c)
        for c in _INVISIBLE.sub(_shown_match, plain)
    )


def one_line(text: object, most: int = 0) -> str:
    """Return text on one visible line with single spaces, cut to `most` characters unless that is 0."""
    line = visible(" ".join(str(text).split()))
    return line if not most or len(line) <= most else f"{line[: most - 1]}…"


def hidden_characters(text: str) -> str:
    r"""Return the control and invisible characters of a text, as `\x1b \u202e`; "" when it has none."""
    return " ".join(dict.fromkeys(_code_of(c) for c in text if _is_hidden(c) or _INVISIBLE.match(c)))


def refuse_hidden_characters(text: str) -> str:
    """Return a name as it is, for a validator of pydantic.

    Raises:
        ValueError: it has control characters, or such as no reader sees. The message names them.
    """
    if shown := hidden_characters(text):
        raise ValueError(f"it has characters that nobody sees: {shown}; write it without them")
    return text


def refuse_hidden_in_lines(text: str) -> str:
    """Return a text of several lines, such as a reason, as it is: see `refuse_hidden_characters`."""
    refuse_hidden_characters(text.replace("\r\n", "\n").translate(_LINE_SPACES))
    return text


def terminal_text(text: object) -> str:
    """Return text of any number of lines for a terminal or a log: nothing in it moves the cursor or makes a link."""
    return visible(str(text).replace("\r\n", "\n").expandtabs(), keep="\n")


def print_text(text: object = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print text for people, on standard output or on `file`. Every command prints by this function."""
    stream = sys.stdout if file is None else file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(terminal_text(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=flush)


class _VisibleLogRecord(logging.LogRecord):
    """A log record whose text, and that of its traceback, has no control or invisible character but line ends."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        if self.exc_info:  # formatters take this text instead of formatting the traceback
            self.exc_text = terminal_text("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))

    def getMessage(self) -> str:  # noqa: N802  (its name in logging)
        """Return the message for a terminal."""
        return terminal_text(super().getMessage())


def log_visible_text() -> None:
    """Make all log lines of this process visible text, wherever they go. Call it where a process begins."""
    logging.setLogRecordFactory(_VisibleLogRecord)


_MARKUP = re.compile(r"([\\`*\[\]~#!$])|((?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_BLOCK_START = re.compile(r"[-+](?=\s|-|$)|=+$|/|\d+(?=[.)](?:\s|$))")
_WWW = re.compile(r"\b(www)\.", re.IGNORECASE)


def escape_markdown(text: object) -> "Markdown":
    """Return text as Markdown on one line that shows it literally: no markup, link, image, mention or table cell."""
    if isinstance(text, Markdown):
        return text
    marked = _MARKUP.sub(r"\\\g<0>", one_line(text))
    if start := _BLOCK_START.match(marked):
        number = start.group().isdigit()
        marked = f"{start.group()}\\{marked[start.end() :]}" if number else f"\\{marked}"
    safe = html.escape(marked, quote=False).replace("://", "&#58;//").replace("@", "&#64;").replace("|", "&#124;")
    return Markdown(_WWW.sub(r"\1&#46;", safe))


def markdown_code(text: object) -> "Markdown":
    """Return text as Markdown in a code span; text that would end one, or a table cell, is shown without it."""
    line = one_line(text)
    return escape_markdown(line) if not line or "`" in line or "|" in line else Markdown(f"`{line}`")


def markdown_block(text: object, language: str = "") -> "Markdown":
    """Return text of several lines as a code block, fenced by more backticks than it holds in a row."""
    lines = visible(str(text).replace("\r\n", "\n"), keep="\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return Markdown(f"{fence}{language}\n{lines}\n{fence}")


def markdown_link(label: object, address: str) -> "Markdown":
    """Return a link of our own; an address that is not one of http or https is shown as text."""
    if not is_web_address(address):
        return Markdown("{}: {}").format(label, address)
    return Markdown(f"[{escape_markdown(label)}](<{address}>)")


def is_web_address(address: str) -> bool:
    """Return whether an address is one of http or https, and can stand in a page or a link as it is."""
    return re.fullmatch(r"https?://[^\s<>\"'`\\|\x00-\x20\x7f]+", address) is not None and not hidden_characters(
        address
    )


class Markdown(str):
    """Text that is Markdown. What `format`, `join` and `+` put into it is escaped, unless it is Markdown.

    Its constructor takes constants of the program alone. Every other operation, and an f-string, returns plain text.
    """

    __slots__ = ()

    def format(self, *args: object, **named: object) -> "Markdown":
        """Return this Markdown with values in the place of its braces."""
        return Markdown(_MarkdownFormatter().vformat(self, args, named))

    def join(self, parts: Iterable[str], /) -> "Markdown":
        """Return the parts with this Markdown between them."""
        return Markdown(str.join(self, map(escape_markdown, parts)))

    def __add__(self, other: str, /) -> "Markdown":
        return Markdown(str.__add__(self, escape_markdown(other)))

    def __radd__(self, other: str, /) -> "Markdown":
        return Markdown(str.__add__(escape_markdown(other), self))


def stored_markdown(text: str) -> Markdown:
    """Return Markdown that this project wrote to a file or a record of its own, and has read back."""
    return Markdown(text)


class _MarkdownFormatter(Formatter):
    """Escapes each value after its format was applied."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return escape_markdown(value if isinstance(value, Markdown) else format(value, format_spec))


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]], columns: str = "") -> Markdown:
    """Return a table. `columns` has a letter for each column, `l` or `r`; empty: all to the left."""
    names = list(head)
    rule = [Markdown("--:") if side == "r" else Markdown("---") for side in columns or "l" * len(names)]
    lines: list[Iterable[object]] = [names, rule, *rows]
    cells = Markdown(" | ")
    return Markdown("\n").join(Markdown("| {} |").format(cells.join(map(escape_markdown, line))) for line in lines)


def html_text(text: object) -> str:
    """Return text for a page or an attribute in quotes: no element, no entity, and what nobody sees is shown."""
    return html.escape(visible(str(text).replace("\r\n", "\n"), keep="\n\t"))


def without_links(text: object) -> str:
    """Return text on one line in which no program finds an address or a person to mention; a reader still does."""
    return _WWW.sub(r"\1[.]", one_line(text).replace("://", "[:]//"))


_ADDRESS = re.compile(r"(https?://[^\s<>|]+)")
_SLACK_MARKS = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "*": "∗", "`": "ˋ", "~": "∼", "@": "@\u200b"})
_SLACK_ITALICS = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_CHAT_MARKS = re.compile(r"([\\`*_~|<>#\[\]!])")


def slack_text(text: str) -> str:
    """Return text for Slack, where it is no mention, link or markup; addresses of http and https stay links.

    Slack has entities for three characters alone. The others that it reads are replaced by ones that look alike.
    """
    return _outside_addresses(text, lambda part: _SLACK_ITALICS.sub("＿", part.translate(_SLACK_MARKS)))


def chat_text(text: str) -> str:
    """Return text for a chat that reads Markdown (Teams, Discord, Mattermost); addresses of http and https stay links.

    Some of them know no entities, so a mention is broken by U+200B, as the libraries of Discord do.
    """
    return _outside_addresses(text, lambda part: _CHAT_MARKS.sub(r"\\\1", part).replace("@", "@\u200b"))


def _outside_addresses(text: str, escape: Callable[[str], str]) -> str:
    parts = _ADDRESS.split(visible(text, keep="\n"))
    return "".join(part if number % 2 else escape(part) for number, part in enumerate(parts))


def header_text(text: object) -> str:
    """Return text for a header of mail or HTTP: one line of ASCII that can be printed, with "?" for all else."""
    return "".join(c if c.isascii() else "?" for c in one_line(text))


_FORMULA = re.compile(r"'*\s*[=+\-@＝＋－＠﹦﹢﹣﹫]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def spreadsheet_text(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: it begins with "'" then. A number stays a number."""
    ascii_only = text.isascii() and text.isprintable()
    shown = text if ascii_only else "".join(c for c in text if c in "\t\r\n" or not hidden_characters(c))
    return f"'{text}" if _FORMULA.match(shown) and not _NUMBER.fullmatch(text) else text


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN_CATEGORIES


def _code_of(character: str) -> str:
    code = ord(character)
    if character in "\n\r\t" or code < 0x100:
        return character.encode("unicode_escape").decode("ascii")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shown_match(found: re.Match[str]) -> str:
    return _code_of(found.group())
