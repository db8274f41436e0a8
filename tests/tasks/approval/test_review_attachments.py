"""Review attachments: stored under their digest with the request; they show what is new in the data."""

import json

import pytest

from tasks.approval.review_attachments import attachments_folder, data_changes, store_review_attachments
from tasks.evidence.rules.differences import baseline_differences
from tests.fixtures.promoted import PromotedModel, promoted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PromotedModel:
    return promoted(tmp_path_factory.mktemp("promoted"))


def test_the_files_lie_under_their_digest_and_a_retry_finds_them(made: PromotedModel) -> None:
    stages = (made.env, made.brought, made.data, made.checked, made.trained, made.judged)
    digest = store_review_attachments(*stages)
    folder = attachments_folder(made.env, "price", "1", digest)
    assert {file.name for file in folder.iterdir()} == {
        "evaluation.json",
        "evaluation.md",
        "evaluation.png",
        "validation.md",
        "data.json",
    }
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert store_review_attachments(*stages) == digest
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    (folder / "validation.md").write_text("all is well")
    assert store_review_attachments(*stages) == digest
    assert "all is well" not in (folder / "validation.md").read_text(), "what was changed is laid down anew"
    assert [each.name for each in folder.parent.iterdir() if each.name.startswith(".")] == []


def test_what_landed_since_the_champion_is_told(made: PromotedModel) -> None:
    first = data_changes(made.env, made.brought, made.data, "")
    assert (first["champion_as_of"], first["features"]) == ("", [])
    assert sum(each["rows"] for each in first["added"]) == first["rows"]
    same = data_changes(made.env, made.brought, made.data, "1")
    assert (same["added"], same["features"]) == ([], []), "the pack is not where the environment keeps them"
    unknown = data_changes(made.env, made.brought, made.data, "9")
    assert unknown["champion_as_of"] == ""


def test_how_features_moved_is_told_from_the_champions_pack(made: PromotedModel) -> None:
    kept = made.env.evidence_folder / "price" / "1" / "pack"
    kept.mkdir(parents=True)
    baseline = json.loads((made.pack / "monitoring.json").read_text())["baseline"]
    name = next(each for each, summary in baseline.items() if summary.get("deviation"))
    baseline[name]["mean"] -= 2 * baseline[name]["deviation"]
    (kept / "monitoring.json").write_text(json.dumps({"baseline": baseline}))
    moved = data_changes(made.env, made.brought, made.data, "1")["features"]
    assert moved[0]["feature"] == name
    assert moved[0]["change"] == pytest.approx(2.0)
    assert all(each["change"] == 0 for each in moved[1:])


def test_features_are_compared_by_what_they_are() -> None:
    number = {"rows": 10, "nulls": 1, "mean": 5.0, "deviation": 2.0}
    before = {"age": number, "plan": {"rows": 10, "nulls": 0, "shares": {"a": 0.5, "b": 0.5}}, "gone": number,
              "still": {**number, "deviation": 0.0}, "kind": number}  # fmt: skip
    now = {"age": {**number, "mean": 6.0, "nulls": 5}, "plan": {"rows": 10, "nulls": 0, "shares": {"a": 0.2, "c": 0.8}},
           "new": number, "still": number, "kind": {"rows": 10, "nulls": 0, "shares": {"a": 1.0}}}  # fmt: skip
    found = {each["feature"]: each for each in baseline_differences(before, now)}
    assert [each["feature"] for each in baseline_differences(before, now)][:2] == ["plan", "age"]
    assert (found["age"]["change"], found["age"]["description"]) == (0.5, "mean 5 → 6")
    assert (found["age"]["nulls_before"], found["age"]["nulls_now"]) == (0.1, 0.5)
    assert (found["plan"]["change"], found["plan"]["description"]) == (0.8, "c: 0.0% → 80.0%")
    assert [found[name]["description"] for name in ("gone", "new", "kind")] == ["gone", "new", "cannot be compared"]
    assert found["still"]["change"] == 0.0
    constant = {"still": {**number, "deviation": 0.0}}
    assert baseline_differences(constant, {"still": {**number, "mean": 9.0, "deviation": 4.0}})[0]["change"] == 1.0
    assert baseline_differences(constant, {"still": {**number, "mean": 9.0, "deviation": 0.0}})[0]["change"] == 1.0
