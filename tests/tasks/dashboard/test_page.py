"""The dashboard's page: it shows what is known, says what is not, and can run or load nothing."""

import re
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from blocks.records.traffic import TrafficInterval
from tasks.dashboard.drawing import DashboardSummary, dashboard_html, dashboards_index_html, status_sentence
from tasks.dashboard.rules.facts import DashboardData, DatasetSummary, SnapshotSummary, Unknown
from tests.fixtures.dashboard_cases import DAY, NOW, blank, busy, look, release, unreached

HOSTILE = (
    """</style></title></svg>"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\x00&amp;"""
)
VOID = {"meta", "br", "img", "link", "input", "hr", "!doctype"}
CASES = {"busy": busy, "blank": blank, "unreached": unreached}


class Read(HTMLParser):
    """Parses a page as a browser does: tags, attributes, texts, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def with_text(value: Any, text: str) -> Any:
    """Return the data with every text, however deep, replaced."""
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(with_text(each, text) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: with_text(getattr(value, field.name), text) for field in fields(value)})
    return value


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_the_page_is_well_formed_and_has_all_its_sections(make: Any) -> None:
    read = Read(dashboard_html(make()))
    assert (read.open, read.wrong) == ([], [])
    ids = [attributes["id"] for tag, attributes in read.tags if tag == "section"]
    assert ids == ["serving", "alerts", "drift", "quality", "traffic", "data", "cost", "schedule"]
    headings = {attributes.get("id") for tag, attributes in read.tags if tag == "h2"}
    assert headings == {f"{name}-title" for name in ids}, "every section is named by its heading"


def test_no_text_of_anybody_becomes_a_tag_or_loads_anything() -> None:
    facts = with_text(replace(busy(), costs=Unknown("")), HOSTILE)
    facts = replace(facts, links={"evil": "javascript:alert(1)", HOSTILE: "https://fine.example/" + HOSTILE})
    text = dashboard_html(facts)
    read = Read(text)
    assert (read.open, read.wrong) == ([], [])
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed", "form", "base"}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on") or name == "style"]
    addresses = [a for _, attributes in read.tags for a in (attributes.get("href"), attributes.get("src")) if a]
    assert all(a.startswith("https://fine.example/") or a == "index.html" for a in addresses), addresses
    assert "\x00" not in text and "alert(1)" in " ".join(read.words), "what was hostile is shown as text"


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_every_picture_has_words_for_those_who_do_not_see_it(make: Any) -> None:
    pictures = [attributes for tag, attributes in Read(dashboard_html(make())).tags if tag == "svg"]
    assert all(each.get("aria-label") or each.get("aria-hidden") for each in pictures)


def test_what_is_not_known_is_said_and_no_zero_is_shown_for_it() -> None:
    words = " ".join(Read(dashboard_html(unreached())).words)
    assert words.count("Unknown: the service at http://127.0.0.1:1 does not answer") == 9
    assert status_sentence(unreached()) == (
        "The deployed version is unknown; the monitoring history is unknown; the alerts are unknown."
    )
    assert not re.search(r"\b0(\.0+)?( USD|%| ms)", words)


def test_a_model_of_which_nothing_happened_yet_says_so() -> None:
    words = " ".join(Read(dashboard_html(blank())).words)
    for said in (
        "No version is deployed yet", "no alert is open", "No monitoring run yet", "No traffic", "No rows were ingested yet",
        "No run has logged its cost", "No deployment of this model has a schedule",
        "no monitoring run found enough labels",
    ):  # fmt: skip
        assert said in words, said


def test_a_busy_model_tells_who_approved_what_drifts_and_what_it_costs() -> None:
    text = dashboard_html(busy())
    words = " ".join(Read(text).words)
    assert (
        status_sentence(busy())
        == "Version 2 is deployed; the last monitoring run, 9 hours ago, found degraded quality; 2 alerts are open."
    )
    for said in (
        "Max (second person)", "better by 0.02 AUC", "prefect form, name not verified", "Dana (data scientist)",
        "confirmed by the endpoint", "deploy failed", "not acknowledged", "acknowledged by Nia",
        "In words: drift.", "31.50 USD", "58.25", "monitor/churn-monitor-nightly", "in 14 hours", "paused", "2,945",
    ):  # fmt: skip
        assert said in words, said
    assert "Drift over time: 27 monitoring runs, 3 of them with findings; open alerts: 2" in text


def test_an_endpoint_that_answers_with_another_version_is_told_on_top() -> None:
    facts = busy()
    assert facts.deployed and not isinstance(facts.deployed, Unknown)
    other = replace(facts, deployed=replace(facts.deployed, endpoint_version="1"))
    assert status_sentence(other).startswith("Version 2 is deployed, but the endpoint reports version 1;")
    none = replace(facts, deployed=replace(facts.deployed, endpoint_version=""))
    assert status_sentence(none).startswith("Version 2 is deployed, but the endpoint reports no version;")
    away = replace(facts, deployed=replace(facts.deployed, endpoint_version=Unknown("it is down")))
    assert "the endpoint was not reached" in dashboard_html(away) and status_sentence(away).startswith(
        "Version 2 is deployed;"
    )


def test_a_registry_that_names_another_version_is_told_on_top_with_the_command_that_repairs_it() -> None:
    facts = busy()
    assert facts.deployed and not isinstance(facts.deployed, Unknown)
    assert "ratchet repair" not in dashboard_html(facts)
    other = replace(facts, deployed=replace(facts.deployed, registry_version="1"))
    assert status_sentence(other).startswith("Version 2 is deployed, but the registry names version 1;")
    assert "python -m ratchet repair churn --environment" in dashboard_html(other)
    both = replace(facts, deployed=replace(facts.deployed, registry_version="3", endpoint_version="1"))
    assert status_sentence(both).startswith(
        "Version 2 is deployed, but the endpoint reports version 1 and the registry names version 3;"
    )
    none = replace(facts, deployed=replace(facts.deployed, registry_version=""))
    assert "the registry names no version" in dashboard_html(none)
    away = replace(facts, deployed=replace(facts.deployed, registry_version=Unknown("it is down")))
    assert "the registry was not reached" in dashboard_html(away) and "ratchet repair" not in dashboard_html(away)


def test_a_look_at_another_version_than_serves_now_says_which() -> None:
    other = replace(busy(), monitoring_runs=(replace(look(NOW - timedelta(hours=3), 0.4, "drift"), version="3"),))
    assert "the last monitoring run of version 3, 3 hours ago, found drift" in status_sentence(other)


def test_a_rollback_names_who_took_it_back_and_who_had_approved() -> None:
    facts = busy()
    assert facts.deployed and not isinstance(facts.deployed, Unknown)
    back = release("1", "rollback", "serving", "Nia", "it was slow", NOW - timedelta(hours=3))
    words = " ".join(Read(dashboard_html(replace(facts, deployed=replace(facts.deployed, release=back)))).words)
    assert "rolled back by Nia" in words and "it was slow" in words and "Max (second person)" in words


def test_a_page_stays_small_however_much_there_is_to_show() -> None:
    landings = tuple(SnapshotSummary(NOW - timedelta(minutes=5 * number), 60, "log") for number in range(50_000, 0, -1))
    looks = tuple(look(NOW - timedelta(hours=number), 0.05) for number in range(2160, 0, -1))
    releases = busy().releases * 500
    facts = replace(
        busy(), data=(DatasetSummary("log", "requests", landings, 1),), monitoring_runs=looks, releases=releases
    )
    text = dashboard_html(facts)
    assert len(text) < 400_000
    assert "3,000,000" in text and "and 1,488 more" in text and "the newest 200 of 2,160 monitoring runs" in text
    assert (Read(text).open, Read(text).wrong) == ([], [])


MOMENTS = {"one moment": NOW, "years": NOW - 3000 * DAY, "a minute": NOW - timedelta(minutes=1)}


@pytest.mark.parametrize("first", MOMENTS.values(), ids=MOMENTS)
def test_charts_are_drawn_over_any_stretch_of_time(first: datetime) -> None:
    data = (DatasetSummary("rows", "rows", (SnapshotSummary(first, 1, "a"),), 0),)
    traffic = busy().traffic
    assert not isinstance(traffic, Unknown)
    one = replace(traffic, steps=(TrafficInterval(first, 60, 1, 0, 0, {-10: 1}),))
    text = dashboard_html(replace(busy(), data=data, monitoring_runs=(look(first, 0.0),), traffic=one))
    assert "nan" not in text.lower().replace("nanc", "") and (Read(text).open, Read(text).wrong) == ([], [])


def test_the_list_links_to_every_page_by_its_file() -> None:
    text = dashboards_index_html(
        [
            DashboardSummary(model="price", summary=HOSTILE, drawn_at=NOW),
            DashboardSummary(model="churn", summary="Version 2 serves.", drawn_at=NOW),
        ]
    )
    read = Read(text)
    assert [a["href"] for tag, a in read.tags if tag == "a"] == ["churn.html", "price.html"]
    assert not {tag for tag, _ in read.tags} & {"script", "img"} and (read.open, read.wrong) == ([], [])
    assert "There is no dashboard yet" in dashboards_index_html([])


def test_the_page_forbids_all_but_its_own_style() -> None:
    from base64 import b64encode
    from hashlib import sha256

    facts: DashboardData = busy()
    text = dashboard_html(facts)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
