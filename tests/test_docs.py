"""Documentation pages: each link, file, command, deployment and parameter exists, and each glossary word is used."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT

TOP_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*(ROOT / name for name in TOP_PAGES), *(ROOT / "docs").rglob("*.md"))
}
WRITTEN_BY_USERS = {"deployments/environments/production.toml"}
"""Files that a page tells users to write."""
FOLDERS = "blocks|deployments|docs|flows|local|models|ratchet|requirements|runtime|services|tasks|tests"


def links(page: str) -> Iterator[tuple[str, str]]:
    """Yield each relative link of a page as a path from the root, and its anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            there = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            yield there.relative_to(ROOT).as_posix(), anchor


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub builds them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    missing = [
        f"{path}#{anchor}"
        for path, anchor in links(page)
        if not (ROOT / path).exists() or (anchor and anchor not in anchors(PAGES[path]))
    ]
    assert missing == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, coming = {"README.md"}, ["README.md"]
    while coming:
        found = {path for path, _ in links(coming.pop()) if path in PAGES} - reached
        reached |= found
        coming += found
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = re.findall(rf"`((?:{FOLDERS})/[\w./*-]+)`", PAGES[page])
    assert {name for name in named if not [*ROOT.glob(name.rstrip("/"))]} - WRITTEN_BY_USERS == set()


def test_every_page_that_code_names_exists() -> None:
    command = ["git", "grep", "-hoE", r"docs/[a-z0-9/-]+\.md", "--", ".", ":!CHANGELOG.md"]
    named = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_module_that_a_page_names_exists() -> None:
    folders = FOLDERS.replace("|ratchet|requirements", "")  # `ratchet.keep` is a tag, not a module
    pattern = rf"(?:`|python -m )((?:{folders})(?:\.\w+)+)"
    pages = {page: text for page, text in PAGES.items() if page != "CHANGELOG.md"}
    named = {name for text in pages.values() for name in re.findall(pattern, text)}
    named = {name for name in named if not name.endswith((".py", ".toml"))}
    assert len(named) > 20
    assert {name for name in named if not module_or_name_exists(name)} == set()


def module_or_name_exists(dotted: str) -> bool:
    """Return whether it is a module or package, or a name that is defined in one."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module = path.parent.with_suffix(".py")
    return module.exists() and re.search(rf"^(class|def|async def) {path.name}\b", module.read_text(), re.M) is not None


def test_every_make_command_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in PAGES.values() for name in re.findall(r"`(?:\w+=\S+ )*make ([a-z-]+)", text)}
    assert named - targets == set()


def flows_by_deployment() -> dict[str, str]:
    """Return the entrypoint's file of each deployment, by flow and deployment."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    files = {each["name"]: each["entrypoint"].partition(":")[0] for each in deployments}
    return {f"{Path(file).stem}/{name}": file for name, file in files.items()}


def parameters(file: str) -> set[str]:
    """Return the parameters of a file's flow."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    flow = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == Path(file).stem)
    return {argument.arg for argument in flow.args.args}


def test_every_deployment_that_a_page_names_exists() -> None:
    known = flows_by_deployment()
    flows = "|".join({name.partition("/")[0] for name in known})
    pages = {page: text for page, text in PAGES.items() if page != "CHANGELOG.md"}
    named = {name for text in pages.values() for name in re.findall(rf"`((?:{flows})/[a-z-]+)`", text)}
    assert len(named) > 10
    assert named - set(known) == set()


def test_every_parameter_in_an_example_exists() -> None:
    known = flows_by_deployment()
    unknown = set()
    for text in PAGES.values():
        for deployment, rest in re.findall(r"prefect deployment run (\S+/\S+)([^`\n]*)", text):
            given = set(re.findall(r"-p (\w+)=", rest))
            unknown |= {f"{deployment}: {name}" for name in given - parameters(known[deployment])}
    assert unknown == set()


NOT_OUR_NAMES = {
    "can_have_nan": "an option of DuckDB's Parquet reader",
    "default_bucket": "an argument of SageMaker's Session",
    "lake_formats": "a program of the benchmarks",
    "merge_asof": "a function of pandas",
    "observed_at": "a column of the example in joins.md",
    "pg_collation": "a table of PostgreSQL",
    "scheduled_at": "a column of the example in joins.md",
}
"""Names with `_` that pages use and our code does not, each with its reason."""


def key_names(text: str) -> set[str]:
    """Return the lower-case names with `_` in back-ticks, without those in paths and modules of tests."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))
    spans = [re.sub(r"[\w./]*\btest(?:s[./]|_)[\w./]*", "", span) for span in spans]
    return {name for span in spans for name in re.findall(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b", span)}


def current_text(page: str) -> str:
    """Return a page without the names of the past: of the changelog's tables the column "now" alone, and no "(was …)"."""
    if page != "CHANGELOG.md":
        return PAGES[page]
    return "\n".join(
        line.rstrip("| ").rpartition("|")[2] if line.lstrip().startswith("|") else re.sub(r"\(was [^)]*\)", "", line)
        for line in PAGES[page].splitlines()
    )


def names_in_code() -> set[str]:
    """Return each name that occurs in a file that is neither a test nor documentation."""
    listed = subprocess.run(
        ["git", "grep", "-hoE", r"[A-Za-z0-9_]*_[A-Za-z0-9_]*", "--", ".", ":!tests", ":!*.md", ":!*.lock"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = set(listed.stdout.splitlines())
    return names | {name.removeprefix("expect_") for name in names}


def test_every_key_that_a_page_names_exists() -> None:
    known = names_in_code()
    named = {page: key_names(current_text(page)) for page in PAGES if not page.startswith("docs/decisions/")}
    unknown = {f"{page}: {name}" for page in named for name in named[page] - known - set(NOT_OUR_NAMES)}
    assert unknown == set()
    assert set(NOT_OUR_NAMES) <= set().union(*named.values()) - known, "an exception is no longer needed"


GLOSSARY = re.findall(r"^\| \*\*(.+?)\*\* \|", PAGES["docs/glossary.md"], re.MULTILINE)


def test_the_glossary_has_each_word_once_and_from_a_to_z() -> None:
    assert len(GLOSSARY) > 50
    assert sorted(set(GLOSSARY), key=str.lower) == GLOSSARY


@pytest.mark.parametrize("word", GLOSSARY)
def test_every_word_of_the_glossary_is_used(word: str) -> None:
    pattern = re.sub(r"[ -]", "[ _-]?", re.escape(word).replace("\\ ", " ").replace("\\-", "-"))
    done = subprocess.run(
        ["git", "grep", "-qiE", pattern, "--", ".", ":!docs/glossary.md", ":!CHANGELOG.md", ":!tests"],
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
