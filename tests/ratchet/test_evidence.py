"""Evidence packs: sixteen items, readable without a server, and every changed bit is found."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.commands.audit import read_record
from runtime.signatures import signature_file
from tasks.approval.review_attachments import store_review_attachments
from tasks.approval.rules.evidence import canonical_json, parse_evidence
from tasks.evidence.pack import evidence_pack_files
from tasks.evidence.rules.page import EVIDENCE_ITEMS
from tasks.evidence.verification import report, verify_pack
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.command_line import ratchet
from tests.fixtures.promoted import PromotedModel, promoted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PromotedModel:
    return promoted(tmp_path_factory.mktemp("promoted"))


def keys(made: PromotedModel) -> list[str]:
    return list(made.env.signing.trusted_model_keys)


def test_every_item_is_there_and_signed(made: PromotedModel) -> None:
    assert len(EVIDENCE_ITEMS) == 16
    found = verify_pack(made.pack.parent, keys(made))
    assert found.valid, report(made.pack, found)


def test_the_page_tells_it_all_without_a_server_and_escapes_what_people_wrote(made: PromotedModel) -> None:
    page = (made.pack / "index.html").read_text()
    for part in (
        "price version 1 in local",
        "max@example.com",
        "approved",
        "16. ",
        "it passes its floors",
        "data:image/png;base64,",
    ):
        assert part in page
    assert "<script" not in page and "<b>work</b>" not in page
    assert not [tag for tag in ("src='http", "href='http", "@import", "<link") if tag in page], "nothing from elsewhere"
    for item in EVIDENCE_ITEMS:
        for name in item.files:
            assert f"href='{name}'" in page


def packed(made: PromotedModel) -> dict[str, bytes]:
    return evidence_pack_files(
        made.env, made.request, made.brought, made.data, made.checked, made.trained, made.judged, made.deployed, {}
    )


@pytest.mark.parametrize("name", ["evaluation/evaluation.md", "provenance/uncommitted.patch"])
def test_what_the_run_has_after_the_approval_is_not_signed(name: str, tmp_path: Path) -> None:
    """Whoever may write to MLflow can replace the files of a run while it waits for its approval."""
    made, forged = promoted(tmp_path), tmp_path / "forged" / name
    forged.parent.mkdir(parents=True)
    forged.write_text("AUC 0.99")
    made.env.tracking().log_files(made.trained.run_id, tmp_path / "forged")
    if name.startswith("provenance"):
        with pytest.raises(Refusal, match="uncommitted changes are not those that were approved"):
            packed(made)
    else:
        assert b"AUC 0.99" not in packed(made)["evaluation.md"]


def test_attachments_that_were_changed_after_the_approval_are_not_signed(tmp_path: Path) -> None:
    made = promoted(tmp_path)
    (folder,) = (made.env.evidence_folder / "price" / "1").glob("request-*")
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(Refusal, match="attachments are not those that were approved"):
        packed(made)


def test_backtests_of_a_version_are_in_its_pack_beside_the_evaluation(tmp_path: Path) -> None:
    made, stored = promoted(tmp_path), tmp_path / "stored"
    stored.mkdir()
    (stored / "backtests.md").write_text("# Backtests")
    made.env.tracking().log_files(made.trained.run_id, stored, artifact_folder="evaluation")
    attached = store_review_attachments(made.env, made.brought, made.data, made.checked, made.trained, made.judged)
    shown = replace(parse_evidence(made.request.evidence), attachments_digest=attached)
    files = packed(replace(made, request=replace(made.request, evidence=canonical_json(shown))))
    (listed,) = [item for item in json.loads(files["items.json"])["items"] if item["key"] == "evaluation"]
    assert {"backtests.md", "evaluation.md"} <= set(listed["files"])


def test_the_facts_are_those_of_the_run(made: PromotedModel) -> None:
    def read(name: str) -> dict:
        return json.loads((made.pack / name).read_text())

    assert read("data.json")["holdout_digest"] == made.data.holdout_digest
    assert read("data.json")["tables"]["main"]["snapshots"][0]["rows"] == 300
    assert read("code.json")["authors"] == ["Nia <nia@example.com>"]
    assert read("deployment.json")["deployment"]["by"] == "max@example.com"
    assert read("deployment.json")["rollback_target"] == ""
    assert read("monitoring.json")["baseline"]["rooms"]["deciles"][0] == 0.0
    assert read("model.json")["digest"] == made.trained.model_digest
    assert read("retention.json")["years"] == 10
    links, requests, *_ = read_record((made.pack / "approvals.jsonl").read_text().splitlines())
    assert (len(links), set(requests)) == (1, {"price-1"})
    assert "Not meant for taxes" in (made.pack / "card.md").read_text()


def test_the_bill_of_materials_names_the_model_and_what_it_was_trained_with(made: PromotedModel) -> None:
    bom = json.loads((made.pack / "sbom.json").read_text())
    model = bom["metadata"]["component"]
    assert (bom["bomFormat"], bom["specVersion"], model["type"]) == ("CycloneDX", "1.6", "machine-learning-model")
    assert model["hashes"] == [{"alg": "SHA-256", "content": made.trained.model_digest}]
    assert {"scikit-learn", "lightgbm"} <= {component["name"] for component in bom["components"]}


def test_the_provenance_is_a_statement_over_the_model_s_files(made: PromotedModel) -> None:
    statement = json.loads((made.pack / "provenance.json").read_text())
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1",
    )  # fmt: skip
    files = json.loads((made.pack / "model.json").read_text())["files"]
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == files
    digests = [each["digest"] for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert {"gitCommit": "c" * 40} in digests and {"sha256": made.data.data_digest} in digests


@pytest.fixture
def copy(made: PromotedModel, tmp_path: Path) -> Path:
    shutil.copytree(made.pack.parent, tmp_path / "copy")
    return tmp_path / "copy" / "pack"


def test_what_was_changed_and_what_is_absent_is_told_by_item(made: PromotedModel, copy: Path) -> None:
    (copy / "evaluation.md").write_text("all is well")
    (copy / "intended-use.md").unlink()
    found = verify_pack(copy, keys(made))
    assert (found.items["evaluation"], found.items["intended-use"], found.items["data"]) == (
        "changed",
        "absent",
        "present",
    )
    assert "changed: evaluation.md" in found.problem and "missing: intended-use.md" in found.problem


def test_an_item_that_the_team_never_brought_is_absent_and_not_passed_over(made: PromotedModel, tmp_path: Path) -> None:
    listed = json.loads((made.pack / "items.json").read_text())
    limits = next(item for item in listed["items"] if item["key"] == "intended-use")
    assert limits["expected"] == ["intended-use.md"]
    shutil.copytree(made.pack, tmp_path / "pack")
    (tmp_path / "pack" / "intended-use.md").unlink()
    limits["files"] = {}
    (tmp_path / "pack" / "items.json").write_text(json.dumps(listed))
    assert verify_pack(tmp_path, keys(made)).items["intended-use"] == "absent"


def test_another_key_has_not_signed_it(made: PromotedModel) -> None:
    found = verify_pack(made.pack, [])
    assert not found.valid and "no key is pinned" in found.problem


@settings(max_examples=120)
@given(st.randoms(use_true_random=False))
def test_one_flipped_bit_in_any_file_is_found(made: PromotedModel, chance: random.Random) -> None:
    files = [*sorted(path for path in made.pack.iterdir() if path.stat().st_size), signature_file(made.pack)]
    path = chance.choice(files)
    whole = path.read_bytes()
    changed = bytearray(whole)
    bit = chance.randrange(len(whole) * 8)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        assert not verify_pack(made.pack, keys(made)).valid, f"bit {bit} of {path.name}"
    finally:
        path.write_bytes(whole)


def test_from_the_command_line(made: PromotedModel, copy: Path) -> None:
    command = ["evidence", "verify", str(copy), "--key", keys(made)[0]]
    sound = ratchet(*command)
    assert sound.exit_code == 0 and "sound: signed by a pinned key, every item present" in sound.stdout
    (copy / "notes.txt").write_text("a file more")
    changed = ratchet(*command)
    assert changed.exit_code == 1 and "not signed: notes.txt" in changed.stdout
    assert ratchet("evidence", "verify").exit_code == 2
    nothing = ratchet("evidence", "verify", str(copy / "nosuch"))
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert nothing.stderr == f"error: there is no folder {copy / 'nosuch'}\n"
