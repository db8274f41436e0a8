"""Attacks on the four-eyes rule: Eve writes code or requests a run, and wants to approve the result herself."""

import ast
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.common.errors import Rejected
from blocks.common.git import git
from blocks.records.people import Person
from tasks.approval.rules.approval import check_decider
from tasks.approval.rules.people import People
from tasks.approval.rules.policy import ApprovalRequirements
from tasks.shared.code import code_provenance, unapproved_authors
from tasks.shared.rules.git import people_of_commit
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW
from tests.fixtures.approval_requests import evidence, request_over
from tests.structure import python_files

PROGRAM = "".join(f"step_{number}()\n" for number in range(40))
EVE, BOB = "Eve <eve@example.com>", "Bob <bob@example.com>"
PERSONAL = ApprovalRequirements()
SERVER = ApprovalRequirements(require_authentication=True)


class Repository:
    """A git repository with the model `price`, in which anyone commits under any name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run("init", "--quiet", "--initial-branch=main")
        self.first = self.commit(BOB, "# models\n", file="README.md")

    def run(self, *command: str, author: str = BOB, committer: str = BOB, text: str = "") -> str:
        names = {"AUTHOR": author, "COMMITTER": committer}
        who = {f"GIT_{role}_NAME": name.partition(" <")[0] for role, name in names.items()}
        who |= {f"GIT_{role}_EMAIL": name.partition(" <")[2].rstrip(">") for role, name in names.items()}
        done = subprocess.run(
            ["git", *command], cwd=self.root, env={**os.environ, **who}, input=text, capture_output=True, text=True, check=True
        )  # fmt: skip
        return done.stdout.strip()

    def write(self, text: str = "", file: str = "models/price/train.py") -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or (path.read_text() if path.exists() else PROGRAM) + "more()\n")

    def commit(
        self, author: str, text: str = "", *, file: str = "models/price/train.py", committer: str = BOB, message: str = "it"
    ) -> str:  # fmt: skip
        self.write(text, file)
        return self.record(author, committer=committer, message=message)

    def record(self, author: str, *, committer: str = BOB, message: str = "it") -> str:
        self.run("add", "--all")
        self.run("commit", "--quiet", "--allow-empty", "-F", "-", author=author, committer=committer, text=message)
        return self.head()

    def head(self) -> str:
        return self.run("rev-parse", "HEAD")

    def authors(self, since: str = "") -> tuple[str, ...]:
        return unapproved_authors("price", since, self.root)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "repository").mkdir()
    return Repository(tmp_path / "repository")


def decide(
    authors: tuple[str, ...], by: str = "eve@example.com", *, requested_by: str = "dana@example.com",
    people: People | None = None, policy: ApprovalRequirements = PERSONAL,
) -> None:  # fmt: skip
    """Approve a request over code of these authors. Raises Refusal."""
    request = replace(request_over(evidence()), authors=authors, requested_by=requested_by)
    check_decider(request, by, "it is better", NOW, authenticated=True, people=people or People(), policy=policy)


def assert_barred(authors: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="an author of the code may not decide"):
        decide(authors)
    decide(authors, "max@example.com")


def by_committer(it: Repository) -> None:
    it.commit(BOB, committer=EVE)


def by_co_author(it: Repository) -> None:
    it.commit(BOB, message=f"it\n\nCo-authored-by: {EVE}")


def by_co_author_in_capitals(it: Repository) -> None:
    it.commit(BOB, message=f"it\n\nCO-AUTHORED-BY:{EVE}")


def by_co_author_of_one_part_of_a_squash(it: Repository) -> None:
    it.commit(BOB, message=f"all of it\n\n* one\n\n Co-authored-by: {EVE}\n\n* two\n\nand so on")


def by_folded_co_author(it: Repository) -> None:
    it.commit(BOB, message=f"it\n\nCo-authored-by:\n {EVE}")


def by_indented_co_author(it: Repository) -> None:
    it.commit(BOB, message=f"it\n\nsome words\n    Co-authored-by: {EVE}")


def by_sign_off(it: Repository) -> None:
    it.commit(BOB, message=f"it\n\nSigned-off-by: {EVE}")


def by_an_early_commit(it: Repository) -> None:
    it.commit(EVE)
    it.commit(BOB)


def by_a_change_hidden_in_a_merge(it: Repository) -> None:
    it.commit(BOB)
    it.run("checkout", "--quiet", "-b", "side")
    it.commit(BOB, file="models/price/notes.md")
    it.run("checkout", "--quiet", "main")
    it.commit(BOB, file="README.md")
    it.run("merge", "--quiet", "--no-commit", "side")
    it.write()
    it.record(EVE, committer=EVE)


def by_undoing_a_change_in_a_merge(it: Repository) -> None:
    it.commit(BOB)
    it.run("checkout", "--quiet", "-b", "side")
    it.commit(BOB)
    it.run("checkout", "--quiet", "main")
    it.commit(BOB, file="README.md")
    it.run("merge", "--quiet", "--no-commit", "--strategy=ours", "side")
    it.record(EVE, committer=EVE)


def by_a_merge_of_three(it: Repository) -> None:
    it.commit(BOB)
    for name in ("one", "two"):
        it.run("checkout", "--quiet", "-b", name, "main")
        it.commit(BOB, file=f"models/price/{name}")
    it.run("checkout", "--quiet", "main")
    it.commit(BOB, file="README.md")
    tree = it.run("rev-parse", "one^{tree}")
    parents = [part for name in ("main", "one", "two") for part in ("-p", name)]
    it.run("reset", "--quiet", "--hard", it.run("commit-tree", tree, *parents, "-m", "it", author=EVE, committer=EVE))


def by_moving_it_from_another_folder(it: Repository) -> None:
    it.commit(EVE, file="models/other/train.py")
    (it.root / "models" / "price").mkdir(parents=True)
    it.run("mv", "models/other/train.py", "models/price/train.py")
    it.record(BOB)


def by_copying_it_twice(it: Repository) -> None:
    it.commit(EVE, file="lib/kept.py")
    for source, target in (("lib/kept.py", "models/other/kept.py"), ("models/other/kept.py", "models/price/train.py")):
        (it.root / target).parent.mkdir(parents=True)
        (it.root / target).write_text((it.root / source).read_text())
        it.record(BOB)


def by_mailmap(it: Repository) -> None:
    it.commit(EVE)
    it.commit(BOB, f"{BOB} {EVE}\n", file=".mailmap")
    it.run("config", "log.mailmap", "true")


def by_a_replaced_commit(it: Repository) -> None:
    hers = it.commit(EVE, committer=EVE)
    tree = it.run("rev-parse", f"{hers}^{{tree}}")
    his = it.run("commit-tree", tree, "-p", it.first, "-m", "it")
    it.run("replace", hers, his)


def by_a_graft(it: Repository) -> None:
    it.commit(EVE)
    last = it.commit(BOB)
    (it.root / ".git" / "info" / "grafts").write_text(f"{last} {it.first}\n")


def by_a_side_branch_that_was_overruled(it: Repository) -> None:
    it.commit(BOB)
    it.run("checkout", "--quiet", "-b", "side")
    it.commit(EVE)
    it.run("checkout", "--quiet", "main")
    it.run("merge", "--quiet", "--strategy=ours", "-m", "it", "side")


WAYS = [
    by_committer, by_co_author, by_co_author_in_capitals, by_co_author_of_one_part_of_a_squash, by_folded_co_author,
    by_indented_co_author, by_sign_off, by_an_early_commit, by_a_change_hidden_in_a_merge, by_undoing_a_change_in_a_merge, by_a_merge_of_three,
    by_moving_it_from_another_folder, by_copying_it_twice, by_mailmap, by_a_replaced_commit, by_a_graft,
    by_a_side_branch_that_was_overruled,
]  # fmt: skip


@pytest.mark.parametrize("write", WAYS, ids=lambda way: way.__name__)
def test_eve_may_not_approve_a_first_model_that_she_wrote(repository: Repository, write: Callable[..., None]) -> None:
    write(repository)
    assert_barred(repository.authors())


@pytest.mark.parametrize("write", [way for way in WAYS if way is not by_a_graft], ids=lambda way: way.__name__)
def test_eve_may_not_approve_what_she_wrote_since_the_champion(
    repository: Repository, write: Callable[..., None]
) -> None:
    write(repository)
    assert_barred(repository.authors(since=repository.first))


def test_a_committer_without_a_name_is_read_for_what_it_is() -> None:
    assert [*people_of_commit(f"{BOB}\n <eve@example.com>\nit\n\nReviewed-by: Max <max@example.com>")] == [
        BOB, " <eve@example.com>",
    ]  # fmt: skip
    assert_barred((" <eve@example.com>",))


def test_who_merges_without_a_change_is_no_author_and_may_approve(repository: Repository) -> None:
    repository.commit(BOB)
    repository.run("checkout", "--quiet", "-b", "side")
    repository.commit(BOB, file="models/price/notes.md")
    repository.run("checkout", "--quiet", "main")
    repository.commit(BOB)
    repository.run("merge", "--quiet", "-m", "it", "side", author=EVE, committer=EVE)
    decide(repository.authors())


def test_the_committer_of_a_hosts_pages_is_nobody_but_others_under_its_address_are(repository: Repository) -> None:
    repository.commit(BOB, committer="GitHub <noreply@github.com>")
    decide(repository.authors())
    repository.commit(BOB, committer="Eve <noreply@github.com>")
    with pytest.raises(Refusal, match="an author of the code may not decide"):
        decide(repository.authors(), "Eve")


def test_a_move_takes_the_whole_history_of_what_was_moved(repository: Repository) -> None:
    repository.commit(EVE, file="models/other/train.py")
    champion = repository.commit(BOB, PROGRAM, file="models/price/old.py")
    (repository.root / "models" / "price" / "train.py").write_text(
        (repository.root / "models" / "other" / "train.py").read_text()
    )
    repository.record(BOB)
    assert_barred(repository.authors(since=champion))


@pytest.mark.parametrize(
    "since", ["--output=stolen", "HEAD", "main", "abc", "f" * 40, "0" * 40, "HEAD~0 --all", "\0", "-" * 40]
)
def test_a_champions_commit_that_is_none_takes_all_of_history(repository: Repository, since: str) -> None:
    by_an_early_commit(repository)
    assert_barred(repository.authors(since=since))
    assert not (repository.root / "stolen").exists()


def test_code_that_was_reverted_before_the_champion_still_has_its_author(repository: Repository) -> None:
    """Eve's change was reverted, and the champion is newer; a run at her commit has it again."""
    repository.commit(BOB)
    hers = repository.commit(EVE)
    at = repository.commit(BOB, "# a comment\n" + (repository.root / "models/price/train.py").read_text())
    repository.run("revert", "--no-edit", hers)
    champion = repository.head()
    assert_barred(unapproved_authors("price", champion, repository.root, commit=at))


@pytest.mark.parametrize(
    "author", ["[REDACTED] <[REDACTED]>", " <>", "unknown <unknown>", "root <root@localhost>", "\u200b <noreply@x.org>"]
)
def test_a_hidden_author_is_not_nobody(author: str) -> None:
    with pytest.raises(Refusal, match=r"(?s)author of the code cannot be identified.*alias"):
        decide((BOB, author), "max@example.com")


def test_an_author_that_is_declared_as_an_alias_is_that_person() -> None:
    ann = People({"ann@example.com": Person(aliases=("[REDACTED]", "root@localhost"))})
    for author in ("[REDACTED] <[REDACTED]>", "root <root@localhost>"):
        decide((author,), "max@example.com", people=ann)
        with pytest.raises(Refusal, match="an author of the code may not decide"):
            decide((author,), "Ann <ann+git@example.com>", people=ann)


@pytest.mark.parametrize(
    "requester", ["[REDACTED]", "unknown", "noreply@github.com", "\u2800", "\u0301\u0301", "Е\u0305ve"]
)
def test_a_hidden_requester_is_not_nobody(requester: str) -> None:
    with pytest.raises(Refusal, match="requester cannot be identified"):
        decide((BOB,), requested_by=requester)


def test_a_history_that_is_not_there_is_no_empty_history(repository: Repository, tmp_path: Path) -> None:
    by_an_early_commit(repository)
    shallow = tmp_path / "shallow"
    repository.run("clone", "--quiet", "--depth=1", f"file://{repository.root}", str(shallow))
    authors = unapproved_authors("price", root=shallow)
    assert authors[-1].startswith("unknown history (the checkout does not have all of the history")
    with pytest.raises(Refusal, match=r"(?s)cannot be identified.*--unshallow"):
        decide(authors, "max@example.com", policy=SERVER)
    decide(authors, "max@example.com")  # where names are not proved, it is said and no more


@pytest.mark.parametrize("missing", ["git", "commit"])
def test_code_that_git_does_not_know_has_an_unknown_author(
    repository: Repository, missing: str, tmp_path: Path
) -> None:
    root = tmp_path if missing == "git" else repository.root
    authors = unapproved_authors("price", root=root, commit="" if missing == "git" else "e" * 40)
    with pytest.raises(Refusal, match="cannot be identified"):
        decide(authors, "max@example.com", policy=SERVER)


DISGUISES = {
    "an invisible letter": "eve\u034f@example.com",
    "a Hangul filler": "\u3164eve@example.com",
    "a variation selector": "eve\ufe0f@example.com",
    "a tag of plane 14": "eve\U000e0041@example.com",
    "a blank Braille cell": "\u2800eve@example.com",
    "a comment": "eve@example.com (approver)",
    "a comment within a comment": "eve@example.com (a (b) c)",
    "a name and a comment": "Eve (the other one)",
    "a trailing dot": "eve@example.com.",
    "a trailing comma": "Eve,",
    "quotes": '"Eve" <other@example.com>',
    "curly quotes": "“Eve”",
    "mailto": "mailto:eve@example.com",
    "percent": "eve%40example.com",
    "a tag": "eve+2@example.com",
    "full-width letters": "ｅｖｅ＠ｅｘａｍｐｌｅ．ｃｏｍ",
    "mathematical letters": "𝐄𝐯𝐞",
    "an accent": "Éve",
    "strokes and small capitals": "ᴇᴠᴇ",
    "letters of another script alone": "\u0415\u03bd\u0435",
    "the login of a private address": "77+eve@users.noreply.github.com",
    "GitLab's private address": "77-eve@users.noreply.gitlab.com",
    "Gitea's private address": "eve@noreply.codeberg.org",
    "a mailbox among others": "x@example.org, eve@example.com",
    "only a word in brackets": "Eve [work]",
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_a_disguise_makes_no_other_person(disguise: str) -> None:
    with pytest.raises(Refusal):
        decide((EVE,), disguise)
    with pytest.raises(Refusal):
        decide((BOB,), disguise, requested_by="eve@example.com (Eve)")
    with pytest.raises(Refusal):
        decide((disguise,), EVE)


def test_both_addresses_of_one_login_and_one_number_are_one_person_and_others_are_not() -> None:
    people = People()
    mine = "12345+eve@users.noreply.github.com"
    assert people.is_same_person(mine, "eve@users.noreply.github.com")
    assert people.is_same_person(mine, "12345+renamed@users.noreply.github.com")
    assert not people.is_same_person(mine, "12345+eve@users.noreply.github.com".replace("12345+eve", "777+max"))
    assert not people.is_same_person("Ann <noreply@github.com>", "Bob <noreply@github.com>")


def test_a_word_of_mixed_scripts_is_refused() -> None:
    with pytest.raises(Refusal, match=r"(?s)letters that look alike"):
        decide((BOB,), "M\u0430x")
    decide((BOB,), "Анна <anna@example.org>")


def test_a_look_alike_takes_no_role() -> None:
    people = People({"Max": Person(roles=("risk",)), "ann@example.com": Person(roles=("risk",))})
    policy = ApprovalRequirements(roles=("risk",))
    decide((BOB,), "max", people=people, policy=policy)
    for other in ("Мах", "Máx", "Max <eve@example.com>", "Eve (ann@example.com)", "eve@x.org, ann@example.com"):
        with pytest.raises(Refusal, match="none of the roles"):
            decide((BOB,), other, people=people, policy=policy)


def test_a_program_that_a_repository_names_is_not_run(repository: Repository, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    repository.commit(BOB, "*.py diff=evil\n", file=".gitattributes")
    repository.commit(BOB, "name: price\n", file="models/price/model.yaml")
    repository.commit(BOB)
    for setting in (
        "core.fsmonitor",
        "core.pager",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "gpg.program",
    ):
        repository.run("config", setting, str(program))
    repository.run("config", "log.showSignature", "true")
    repository.write()
    ran.unlink(missing_ok=True)
    assert "more()" in code_provenance(repository.root).patch
    repository.authors()
    assert not ran.exists()


@pytest.mark.parametrize("value", ["--output=stolen", "-x", "", "a\0b"])
def test_no_value_is_read_as_an_option(repository: Repository, value: str) -> None:
    with pytest.raises(Rejected, match="may not begin with -"):
        git("log", values=[value], folder=repository.root)


def test_variables_of_git_do_not_choose_another_repository(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other = Repository(tmp_path / "other")
    other.commit(BOB)
    repository.commit(EVE)
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.worktree")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(other.root))
    assert EVE in unapproved_authors("price", root=repository.root)


def test_git_is_run_in_one_place_alone() -> None:
    """Each other call would have to think of options, hooks, replaced objects and foreign programs again."""
    programs = {module: text for module, path in python_files().items() if "subprocess" in (text := path.read_text())}
    places = {
        module
        for module, text in programs.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.List | ast.Tuple) and node.elts
        if isinstance(node.elts[0], ast.Constant) and str(node.elts[0].value).rpartition("/")[2] == "git"
    }
    assert places == {"blocks.common.git"}
