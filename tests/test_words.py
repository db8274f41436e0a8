"""Retired words stay out of names, docstrings, comments, messages, pages and templates; each has a replacement.

`docs/glossary.md` defines the words that are used. A word of the list that means something else in one place goes on
`ALLOWED`, with its reason.
"""

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from tests.checkout import ROOT

QUIET = r"(?-i:\bQuiet\b)|\b(?:is|are) quiet\b|(?-i:\bCould ?Not ?Check\b)"
SWEEP = r"\b(?:sweep|sweeps|sweeping|swept)\b"
RETIRED = {
    # phrases
    r"what serves|whatever serves|(?:that|which) serves (?:now|today)": "the deployed version",
    r"what (?:(?:it|(?:a|the)(?: served)? (?:model|server|version|endpoint)) )?(?:is|was) asked": "inference requests",
    r"promoted on\b": "reference data",
    r"\b(?:a|an|each|every|one|the|last|first|second|next|newest|of|this) looks?\b": "monitoring run, check",
    r"\blooks at\b": "reads, compares, checks",
    r"\blooked at\b": "read, compared, checked",
    r"\btold as\b|\bwho is told\b|\bare told of\b": "alert, alert routing",
    r"\btell of run\b|\btell findings\b|\btell people\b": "notify, emit alert",
    r"\b(?:take|takes|taken|took|taking)(?: (?:it|them|a \w+|the \w+))? back\b": "roll back",
    r"\basked for by\b|\bwho (?:asks|asked)\b|\bnobody asked for\b": "requested by, requester",
    r"\bnobody needs\b": "unreferenced",
    r"\bin vain\b": "unsuccessful",
    r"\b(?:production tier|tier production|tiers production)\b": "full tier",
    r"\benvironment staging\b|\bregister staging\b": "environment aws",
    # words
    r"\bkeepers?\b": "owner of collectable artifacts",
    r"\bdesks?\b": "approvals page",
    r"\bdoor\b": "app, service",
    r"\breception\b": "ingest",
    r"\bvaults?\b": "secret store",
    r"\bimpatient\b": "header timeout",
    r"\bgenuine\b": "verified, signed",
    r"\bexhibits?\b": "review attachments",
    r"\b(?:land|lands|landed)\b": "ingest, append, commit, arrive",
    r"\b(?:watch|watches|watched|watching)\b": "monitor",
    r"\berrands?\b": "pending sign-in",
    r"\bpre ?fork\w*\b": "warm process",
    r"\bhosting\b": "model server",
    r"\bbarred\b": "revoke, revoked",
    SWEEP: "garbage collection, collect, removed",
    r"\bjudg(?:e|es|ed|ing|ements?)\b": "evaluate, check, decide, result",
    r"\bmend(?:s|ed|ing)?\b": "repair, re-drive, fix",
    r"\bworld\b": "environment, external system",
    QUIET: "no drift, not checked",
    r"\banswer answer\b|\bretrain guard\b": "auto-retrain",
    # names that were stored
    r"\bmade-by/": "provenance/",
    r"\bmodel\.check\.impossible\b": "model.monitoring.failed",
    r"\brelease\.awaiting-approval\b": "approval.requested",
    r"\brelease\.held\b": "evaluation.held",
    r"\b(?:take-in|take_in)\b": "ingest",
    r"\bleave_out\b": "exclude, excluded_columns",
    r"\bmost_in_vain\b|\bin_vain_days\b|\blabels_days\b": "max_unsuccessful, unsuccessful_window_days, max_label_age_days",
    r"\bown_code\b": "custom code, allow_custom_code, RATCHET_MODEL_CODE",
    r"\bKEY_COLUMN\b|RATCHET_KEY_COLUMN": "RATCHET_ENTITY_COLUMN",
    r"\bretain_years\b": "retention_years",
    r"\bhour_worth_usd\b|\bflow_rows_per_second\b": "max_usd_per_hour_saved, local_rows_per_second",
    r"\bdecisions_trusted\b|\bmodels_trusted\b": "trusted_decision_keys, trusted_model_keys",
    r"\bfresh_environment\b": "fresh_venv",
    r"\bolder_than_hours\b": "min_orphan_age_hours",
    r"\bdeployments[./](?:gateway|hosting|container|prefork|local_sagemaker)\b": "services, runtime, local",
    r"\btasks[./]logic\b": "tasks/<stage>/rules",
}
"""Pattern (upper and lower case alike) and the words to write instead."""

ANY = re.compile("|".join(f"(?:{pattern})" for pattern in RETIRED), re.IGNORECASE)

ALLOWED = (
    *(
        (r"\bhosting\b", file, "AWS's price list has training, hosting and transform")
        for file in (
            "tasks/shared/rules/cost/*",
            "tasks/cleanup/rules/*cloud.py",
            "blocks/common/aws/pricing.py",
            "ratchet/commands/models.py",
            "docs/cost.md",
        )
    ),
    (QUIET, "blocks/c*/*.py", "a member of S3's DeleteObjects"),
    (QUIET, "local/sagemaker/server.py", "a log filter that keeps a server quiet"),
    (SWEEP, "docs/garbage-collection.md", "the algorithm's name: mark and sweep"),
)
"""Pattern, files, and the other meaning of the word there."""

LEFT_OUT = ("tests/*", "requirements/*", "LICENSE", "CHANGELOG.md")
"""Not production code; licence and changelog quote others, and earlier names."""
READ = (".py", ".md", ".html", ".toml", ".yaml", ".yml", ".tf", ".hcl", "Makefile", "Jenkinsfile", "Dockerfile")


def files() -> list[str]:
    """Return the files that are searched: those that git tracks or would add."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    kept = [name for name in listed if name.endswith(READ) and not any(fnmatch(name, left) for left in LEFT_OUT)]
    return [name for name in kept if (ROOT / name).exists()]


def pieces(name: str) -> Iterator[tuple[int, str]]:
    """Yield the texts of a file, each with its line: its path, names, strings and comments, or paragraphs."""
    yield 0, name
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        yield from python_pieces(text)
        return
    line = 1
    for paragraph in re.split(r"(\n\s*\n|\n(?=\||- |\d+\. ))", text):
        yield line, paragraph
        line += paragraph.count("\n")


def python_pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield each name and string of a program, and each run of comments."""
    comment: tuple[int, str] | None = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment = (comment[0] if comment else token.start[0], f"{comment[1] if comment else ''} {token.string}")
        elif token.type in (tokenize.NAME, tokenize.STRING):
            yield token.start[0], token.string
        if comment and token.type not in (tokenize.COMMENT, tokenize.NL):
            yield comment
            comment = None


def as_words(text: str) -> str:
    """Return a text with names split into words, on one line: `watch_drift`, `watch-drift` and `WatchDrift`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text.replace("CloudWatch", "Cloudwatch"))
    return re.sub(r"[\s_#*-]+", " ", apart)


def retired_words(name: str) -> Iterator[str]:
    """Yield each retired word in a file, with its line and its replacement."""
    for line, piece in pieces(name):
        if not ANY.search(f"{piece}\n{as_words(piece)}"):
            continue
        for pattern, instead in RETIRED.items():
            if any(fnmatch(name, files) for allowed, files, _ in ALLOWED if allowed == pattern):
                continue
            if found := re.search(pattern, f"{piece}\n{as_words(piece)}", re.IGNORECASE):
                yield f"{name}:{line}: {found.group()!r}; write: {instead}"


@pytest.mark.parametrize("name", files())
def test_no_retired_word_is_used(name: str) -> None:
    assert list(retired_words(name)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("watch_drift", True), ("WatchDrift", True), ("churn-watch-nightly", True), ("what\n    serves", True),
        ("CloudWatch alarms", False), ("taken it back", True), ("take the model back", True), ("stopwatch", False),
        ("a knowledge judgement", True), ("Quiet", True), ("quiet logs", False), ("the monitoring run", False),
    ],
)  # fmt: skip
def test_a_retired_word_is_found_in_whatever_form(text: str, found: bool) -> None:
    assert any(re.search(pattern, as_words(text), re.IGNORECASE) for pattern in RETIRED) is found


def test_every_exception_is_still_needed() -> None:
    for pattern, where, reason in ALLOWED:
        assert pattern in RETIRED and reason
        matching = [name for name in files() if fnmatch(name, where)]
        texts = [as_words((ROOT / name).read_text(encoding="utf-8")) for name in matching]
        assert any(re.search(pattern, text, re.IGNORECASE) for text in texts), f"{pattern} is not in {where}"
