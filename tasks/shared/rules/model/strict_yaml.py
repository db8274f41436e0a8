"""YAML, read strictly: what a reader might take otherwise than its writer meant is a mistake, with its line.

Plain scalars follow YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema) as far as YAML 1.1
reads them alike. Where the two differ (`no`, `010`, `12:30`, `1e3`, dates) it is refused, not guessed.
Anchors, aliases, merge keys, tags and second documents are refused altogether: a file of settings needs none.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from tasks.shared.rules.model.mistakes import KeyPath, Mistake, Mistakes, key_name

MAX_BYTES = 1_048_576
"""The longest file that is read, in bytes."""
MAX_NODES = 20_000
"""The most keys and values that are read: a table of about 10,000 columns."""
MAX_DEPTH = 20
"""The deepest nesting that is read."""

INVALID_VALUE = object()
"""Stands in a document for a value that is a mistake. No record accepts its type."""

_TEXT, _BOOL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_AMBIGUOUS_SCALARS = (
    (r"[-+]?\.(inf|nan)", "must be a finite number", "Write a number."),
    (r"[-+]?[0-9][0-9_]*(:[0-9_.]+)+", "is read as minutes or seconds", "Write one number, or quote it."),
    (r"[-+]?0[0-9_]+|0[xob][0-9a-f_]+", "is read as octal, hex or binary by some, as decimal by others",
     "Write a decimal number without a leading zero, or quote it if text is meant."),
    (r"[-+]?[0-9][0-9_.]*_[0-9_.]*", "is read as a number by some, as text by others",
     "Take the underscores out, or quote it if text is meant."),
    (r"\d{4}-\d\d?-\d\d?.*", "is read as a date", "Quote it."),
)  # fmt: skip


@dataclass(frozen=True)
class SourceLocation:
    """Where a value stands: its line (from 1), and a scalar's text as the file has it ("" for others)."""

    line: int
    written: str = ""


@dataclass(frozen=True)
class Document:
    """A file's mapping with the place of every key and item; lists come as tuples.

    `mistakes` are those that did not stop the reading; the value of each is `INVALID_VALUE`.
    """

    value: dict[str, object]
    places: dict[KeyPath, SourceLocation]
    mistakes: tuple[Mistake, ...]


def read_yaml(text: str | bytes, where: str) -> Document:
    """Read one mapping; `where` is the file's name for messages, and bytes must be UTF-8.

    Raises:
        Mistakes: it cannot be read at all. Lesser mistakes are in the document returned.
    """
    content = _decoded(text, where)
    _refuse_characters(content, where)
    try:
        root = _LimitedLoader(content).get_single_node()
    except yaml.MarkedYAMLError as cause:
        raise Mistakes(where, [_syntax_mistake(cause)]) from cause
    if root is None:
        raise Mistakes(where, [Mistake(1, "", "the file is empty", remedy="Write `key: value` lines.")])
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "bare text"
        raise Mistakes(where, [Mistake(1, "", f"must be a mapping of keys to values, not {kind}")])
    return _NodeReader(content).read(root)


def _decoded(text: str | bytes, where: str) -> str:
    if len(text) > MAX_BYTES:
        raise Mistakes(where, [Mistake(1, "", f"is longer than {MAX_BYTES:,} bytes")])
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        line = text.count(b"\n", 0, cause.start) + 1
        problem = f"is not UTF-8: byte 0x{text[cause.start]:02x}"
        raise Mistakes(where, [Mistake(line, "", problem, remedy="Save the file as UTF-8.")]) from cause


def _refuse_characters(content: str, where: str) -> None:
    remedy = "Indent with spaces; inside double quotes write \\t."
    lines = enumerate(content.split("\n"), 1)
    mistakes = [Mistake(number, "", "has a tab", remedy=remedy) for number, line in lines if "\t" in line]
    if odd := yaml.reader.Reader.NON_PRINTABLE.search(content):
        line = content.count("\n", 0, odd.start()) + 1
        mistakes.append(Mistake(line, "", "has a character that is not text", repr(odd.group()), "Delete it."))
    if mistakes:
        raise Mistakes(where, mistakes)


def _syntax_mistake(cause: yaml.MarkedYAMLError) -> Mistake:
    line = mark.line + 1 if (mark := cause.problem_mark or cause.context_mark) else 1
    if isinstance(cause, _UnsupportedYaml):
        return Mistake(line, "", str(cause.problem), remedy=str(cause.note))
    if "single document" in str(cause.context):
        return Mistake(line, "", "a second document begins", remedy="Keep one; take out the line `---`.")
    problem = ", ".join(str(part) for part in (cause.context, cause.problem) if part)
    return Mistake(line, "", f"is not YAML: {problem}", remedy="Look for indentation, colons, brackets and quotes.")


class _UnsupportedYaml(yaml.MarkedYAMLError):
    def __init__(self, problem: str, remedy: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark, note=remedy)


class _LimitedLoader(yaml.SafeLoader):
    """Composes nodes, and stops at what is never read and at what would exhaust memory or stack."""

    nodes = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._refuse(event)
        self.nodes, self.depth = self.nodes + 1, self.depth + 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, event: Any) -> None:
        problem = remedy = ""
        if event.anchor:
            problem, remedy = "anchors (&) and aliases (*) are not read", "Write the value out, or quote it."
        elif event.tag:
            problem, remedy = f"tags are not read: {event.tag}", "Take it out, or quote the text."
        elif self.depth >= MAX_DEPTH:
            problem, remedy = f"is nested too deep (more than {MAX_DEPTH} levels)", "Take out brackets."
        elif self.nodes >= MAX_NODES:
            problem, remedy = f"has more than {MAX_NODES:,} keys and values", "Make the file smaller."
        if problem:
            raise _UnsupportedYaml(problem, remedy, event.start_mark)


class _NodeReader:
    """Turns nodes into values, and notes places and mistakes on the way."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.places: dict[KeyPath, SourceLocation] = {(): SourceLocation(1)}
        self.mistakes: list[Mistake] = []

    def read(self, root: yaml.MappingNode) -> Document:
        return Document(self._mapping(root, ()), self.places, tuple(self.mistakes))

    def _value(self, node: Any, path: KeyPath, line: int) -> object:
        self.places[path] = SourceLocation(line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return tuple(
                self._value(item, (*path, number), item.start_mark.line + 1) for number, item in enumerate(node.value)
            )
        written = " ".join(self.content[node.start_mark.index : node.end_mark.index].split())
        self.places[path] = SourceLocation(line, written if len(written) <= 60 else f"{written[:57]}...")
        value, problem, remedy = scalar(node)
        if not problem:
            return value
        self._note(path, line, problem, self.places[path].written, remedy)
        return INVALID_VALUE

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in values:
                problem = f"the key is there twice, first in line {self.places[(*path, key)].line}"
                self._note((*path, key), line, problem, "", "Keep one of them.")
            else:
                values[key] = self._value(value_node, (*path, key), line)
        return values

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        """Return the key, or None after noting why it is none."""
        text = problem = ""
        remedy = "Write `key: value`."
        if isinstance(node, yaml.ScalarNode):
            value, problem, remedy = scalar(node)
            if isinstance(value, str) and not problem:
                return value
            text, remedy = node.value, remedy or f'Quote it: "{node.value}".'
        self._note(path, node.start_mark.line + 1, f"a key {problem or 'must be text'}", text, remedy)
        return None

    def _note(self, path: KeyPath, line: int, problem: str, value: str, remedy: str) -> None:
        self.mistakes.append(Mistake(line, key_name(path), problem, value, remedy))


def scalar(node: yaml.ScalarNode) -> tuple[object, str, str]:
    """Return a scalar's value, what is wrong with it and what to do; "" and "" when nothing is.

    A value with which something is wrong is returned as the text that was written.
    """
    text = str(node.value)
    if node.style is not None:  # quoted, or a block: text, whatever it looks like
        return text, "", ""
    if text in {"", "~"} or text.lower() == "null":
        return text, "has no value", "Give it one, or take the key out."
    if _INT.fullmatch(text):
        return (int(text), "", "") if _fits_int64(text) else (text, "is out of range: beyond 64 bits", "")
    if _FLOAT.fullmatch(text):
        value = float(text)
        return (value, "", "") if math.isfinite(value) else (text, "is out of range: must be finite", "")
    if text.lower() in {"true", "false"}:
        return text.lower() == "true", "", ""
    return text, *_ambiguity(text, node.tag)


def _fits_int64(text: str) -> bool:
    return len(text) <= 20 and -(2**63) <= int(text) < 2**63


def _ambiguity(text: str, tag: str) -> tuple[str, str]:
    """Return problem and remedy of text that some readers take for something else, else two empty texts."""
    for pattern, problem, remedy in _AMBIGUOUS_SCALARS:
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return problem, remedy
    if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+", text):
        return "is read as text by some, as a number by others", _number_remedy(float(text))
    if tag == _BOOL:
        problem = "is read as true or false by some, as text by others"
        return problem, f'Write true or false; if text is meant, quote it: "{text}".'
    return ("", "") if tag == _TEXT else ("is not read as text", f'Quote it: "{text}".')


def _number_remedy(value: float) -> str:
    if not math.isfinite(value):
        return "Write a number below 1.8e+308, or quote it if text is meant."
    digits, exponent, power = repr(value).partition("e")
    return f"Write {digits}{'' if '.' in digits else '.0'}{exponent}{power}, or quote it if text is meant."
