"""Identity: which spellings of a name belong to one person. Everything that compares names of people asks here.

There are two comparisons. What *grants* something (a role, a place among the approvers) takes `exact_names`: nothing
but another way to write the same name or mailbox. What *bars* somebody (four eyes, a revoked right, two approvals by
one person) takes `similar_names` as well, which also holds look-alike letters, names without accents, words in another
order, and logins in private addresses of git hosts. Nobody is proved to be anyone by a name: that is the sign-in's.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import unquote

_INVISIBLE = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufffc\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point, and characters that are drawn as a blank (U+2800, U+1D159, U+16FE4)."""

_LONGEST = 1000
"""Letters of a name that are compared: git allows any length."""
_ADDRESS = re.compile(r"[^\s<>()\",;:]+@[^\s<>()\",;:?]+")
_NO_ADDRESS = re.compile(r"<[^<>@]*>")
_ANY_COMMENT = re.compile(r"\([^()]*\)?|\{[^{}]*\}?|\[[^\[\]]*\]?")
_COMMENT = re.compile(r"\([^()]*\)?")
_TAG = re.compile(r"\+.*")
_GITHUB_ID, _GITLAB_ID = re.compile(r"(\d+)\+(?=.)"), re.compile(r"(\d+)-(?=.)")
_PUNCTUATION = " .,;:'\"`´’‘“”«»<>()!?*~|/\\-_"

_QUOTES = "'`´’‘“”«»"

_NOBODY = frozenset(
    ["anonymous", "bitbucket", "do not reply", "donotreply", "git", "gitea", "github", "gitlab", "localhost", "nobody",
     "none", "noreply", "no reply", "null", "redacted", "root", "unknown", "history unknown"]
)  # fmt: skip
"""Names that hosts, machines and programs write where a person is not known, as sorted words."""
UNKNOWN_HISTORY = "unknown history"
"""Stands for authors that a checkout does not tell, followed by the reason in parentheses."""

_DRAWN_LIKE = ("авекмнорстухіјѕһԁԛԝӏɑɡıƿ01", "abekmhopctyxijshdqwlagipol")
_LOOK_ALIKES = (
    str.maketrans(_DRAWN_LIKE[0] + "αβγεζηικμνορτυχω", _DRAWN_LIKE[1] + "abyeznikmvoptuxw"),
    str.maketrans(_DRAWN_LIKE[0] + "αβεζηικμνορτυχ", _DRAWN_LIKE[1] + "abezhikmnoptyx"),
)
"""Letters and digits that are drawn like a Latin letter: with Greek small letters, and with Greek capitals."""
_LATIN = re.compile(r"LATIN .*?LETTER (?:.* )?([A-Z])(?: WITH .*)?")
_WRITTEN_TOGETHER = (
    frozenset(["LATIN", "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"]),
    frozenset(["LATIN", "CJK", "HANGUL"]),
    frozenset(["LATIN", "CJK", "BOPOMOFO"]),
)


def normalized_name(name: str) -> str:
    """Return a text in the form that is compared: single spaces, no invisible characters, no case; "" for a blank one.

    "Ann Lee", " ann  LEE " and the same in full-width letters are equal. The formula is definition D146 of the Unicode
    Standard, section 3.13: NFKD(toCasefold(NFKD(toCasefold(NFD(name))))), without ignorable, control, private and
    unassigned characters. A text without a letter or digit, such as one of combining marks alone, is blank.
    """
    text = _visible(name)
    for form in ("NFD", "NFKD"):
        text = unicodedata.normalize(form, text).casefold()
    text = " ".join(_visible(unicodedata.normalize("NFKD", text)).split())
    return text if any(c.isalnum() for c in text) else ""


def exact_names(name: str, *, declared: bool = False) -> frozenset[str]:
    """Return the mailbox of a name, or the name itself when it has none, as they are compared where they grant.

    "Ann (risk)" is Ann, "Ann <a+tag@x.org>" is a@x.org; a text with several mailboxes is nobody. With `declared`, for
    names in a configuration, everything counts.
    """
    names, mails = _parts(name if declared else _without(_COMMENT, name) or name)
    own = frozenset(mail for each in mails if (mail := _mailbox(each)))
    if declared:
        return own | names
    return names if not mails else own if len(own) == 1 else frozenset()


def similar_names(name: str) -> frozenset[str]:
    """Return everything by which a name may be recognised, as it is compared where it bars; empty for nobody.

    Two names that share one of these may belong to one person.
    """
    names, mails = _parts(name)
    found = {key for each in names for key in _name_keys(each)}
    for mail in mails:
        found.update(_mail_keys(mail))
    return frozenset(key for key in found if key and key not in _NOBODY)


def may_be_same_person(one: str, other: str) -> bool:
    """Return whether the two names, by their spelling alone, may belong to one person."""
    same = normalized_name(one) == normalized_name(other) != ""
    return same or bool(similar_names(one) & similar_names(other))


def is_identified(name: str) -> bool:
    """Return whether a name tells one person from another: not "", "[REDACTED]", or a word of mixed scripts."""
    return bool(similar_names(name)) and not mixed_script_word(name)


def mixed_script_word(name: str) -> str:
    """Return the first word of a name whose letters are of scripts that are not written together, "" for none.

    Words of different scripts may stand side by side: "Анна <anna@example.com>".
    """
    letters = "".join(c for c in normalized_name(name) if unicodedata.category(c)[0] != "M")
    for word in re.split(r"[\W_]+", letters):
        scripts = {unicodedata.name(c, "?").partition(" ")[0] for c in word if c.isalpha()} - {"MODIFIER"}
        if len(scripts) > 1 and not any(scripts <= together for together in _WRITTEN_TOGETHER):
            return word
    return ""


def _visible(text: str) -> str:
    """Return the text without characters that cannot be seen; spaces of any kind stay."""
    kept = (c for c in _INVISIBLE.sub("", text) if c.isspace() or unicodedata.category(c)[0] != "C")
    return "".join(kept)


def _parts(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names and the mailboxes in a text such as `"Ann" <a@x.org>`, `Lee, Ann` or `mailto:a%40x.org`."""
    plain = normalized_name(unquote(text[:_LONGEST])).replace("mailto:", " ")
    names: set[str] = set()
    for piece in _ADDRESS.sub(";", _NO_ADDRESS.sub(" ", plain)).split(";"):
        bare = _trimmed(_without(_COMMENT, piece)) or _trimmed(piece)
        names.add(bare)
        last, comma, first = bare.partition(",")
        if comma and "," not in first:
            names.add(_trimmed(f"{first} {last}"))
    return frozenset(names - {""}), frozenset(_ADDRESS.findall(plain))


def _without(pattern: re.Pattern[str], text: str) -> str:
    while (shorter := pattern.sub(" ", text)) != text:
        text = shorter
    return text


def _trimmed(text: str) -> str:
    return " ".join(text.replace('"', " ").split()).strip(_PUNCTUATION)


def _mailbox(mail: str) -> str:
    """Return a mailbox without tag, and GitHub's private addresses without number; "" for what is no mailbox."""
    local, _, domain = mail.rpartition("@")
    domain = _domain(domain)
    local = _GITHUB_ID.sub("", local, count=1) if _is_private_host(domain) else _TAG.sub("", local)
    local = local.strip(_QUOTES)
    return f"{local}@{domain}" if local and domain else ""


def _mail_keys(mail: str) -> Iterator[str]:
    local, _, domain = _mailbox(mail).rpartition("@")
    words = _words(local)
    if not local or words in _NOBODY:
        return
    if _is_private_host(domain):
        number = _GITHUB_ID.match(mail) or _GITLAB_ID.match(mail)
        yield f"{number[1]}+@{domain}" if number else ""  # it stays when the login changes
        for login in (local, _GITLAB_ID.sub("", local, count=1)):
            yield from (f"{login}@{domain}", _words(login))
    elif "." not in domain or domain.endswith((".local", ".localdomain", ".lan", ".internal")):
        yield words  # the name of an account on some machine
    else:
        readable = domain
        with suppress(UnicodeError):
            readable = normalized_name(domain.encode("ascii").decode("idna"))
        yield f"{words.replace(' ', '')}@{_skeleton(readable)}"
        yield words if " " in words else ""  # ann.lee@x.org and Ann Lee


def _name_keys(name: str) -> Iterator[str]:
    for text in (name, _without(_ANY_COMMENT, name)):
        yield from (_words(text, table) for table in _LOOK_ALIKES)


def _is_private_host(domain: str) -> bool:
    """Whether a domain has the private addresses of a git host's users: `12345+name@users.noreply.github.com`."""
    return bool({"noreply", "no-reply"} & set(domain.split(".")[:-1]))


def _domain(domain: str) -> str:
    """Return a domain in ASCII (punycode), without the dot of the root."""
    domain = domain.strip(_PUNCTUATION)
    with suppress(UnicodeError):
        return domain.encode("idna").decode("ascii").lower()
    return domain


def _words(text: str, look_alikes: Mapping[int, int] = _LOOK_ALIKES[0]) -> str:
    """Return the words of a text in alphabetical order, as a skeleton."""
    return " ".join(sorted(filter(None, re.split(r"[\W_]+", _skeleton(text, look_alikes)))))


def _skeleton(text: str, look_alikes: Mapping[int, int] = _LOOK_ALIKES[0]) -> str:
    """Return a normalized text without accents and strokes, in the Latin letters that look-alikes resemble."""
    return "".join(_base_letter(c) for c in text.translate(look_alikes))


def _base_letter(letter: str) -> str:
    if letter.isascii():
        return letter
    name = unicodedata.name(letter, "")
    if name.startswith("COMBINING "):
        return ""
    found = _LATIN.fullmatch(name)
    return found[1].lower() if found else letter
