"""Malicious models, which would run code when they are loaded: each is refused before its code runs, signed or not.

The eight kinds are those of `tests/fixtures/malicious_models.py`.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form

from blocks.common.errors import Rejected
from blocks.tracking.predictor_process import PredictorProcess
from runtime.admission import UnsafeModel, UntrustedSignature, admit_model
from runtime.signatures import signature_file
from tests.fixtures.malicious_models import (
    KINDS,
    a_loader_from_elsewhere,
    a_loader_of_its_own,
    a_model_from_code,
    its_own_list_of_trusted_types,
    modules_of_its_own,
    plain,
)
from tests.fixtures.scoring import ROOT
from tests.fixtures.signing_keys import MODELS, signed

KEYS = [MODELS.public_key_line]


@pytest.mark.parametrize("keys", [KEYS, None], ids=["signed", "signatures off"])
@pytest.mark.parametrize(("change", "says"), KINDS.values(), ids=KINDS)
def test_a_malicious_model_is_refused_before_any_of_its_code_runs(
    tmp_path: Path, change: Callable[[Path, Path], None], says: str, keys: list[str] | None
) -> None:
    model, marker = plain(tmp_path / "model"), tmp_path / "marker"
    change(model, marker)
    signed(model)  # even by our own key: the signature of a deceived training program allows nothing
    with pytest.raises((UnsafeModel, UntrustedSignature), match=says):
        admit_model(model, keys)
    assert not marker.exists()


def test_a_plain_model_is_admitted(tmp_path: Path) -> None:
    """The check must not raise."""
    admit_model(signed(plain(tmp_path / "model")), KEYS)


ALLOWED: dict[str, tuple[Callable[[Path, Path], None], dict[str, Any]]] = {
    "a loader": (a_loader_from_elsewhere, {"loaders": ["antigravity"]}),
    "own modules": (modules_of_its_own, {"allow_custom_code": True}),
    "a model from code": (a_model_from_code, {"loaders": ["mlflow.pyfunc.model"], "allow_custom_code": True}),
    "types": (its_own_list_of_trusted_types, {"trusted_types": ["os.system", "builtins.exec"]}),
}


@pytest.mark.parametrize(("change", "allow"), ALLOWED.values(), ids=ALLOWED)
def test_what_the_signer_allows_by_name_is_admitted(
    tmp_path: Path, change: Callable[[Path, Path], None], allow: dict[str, Any]
) -> None:
    model = plain(tmp_path / "model")
    change(model, tmp_path / "marker")
    admit_model(signed(model, **allow), KEYS)
    with pytest.raises(UnsafeModel):
        admit_model(signed(model), KEYS)


UNSIGNED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no signature": (lambda model: signature_file(model).unlink(), "model is not signed"),
    "a changed file": (lambda model: (model / "requirements.txt").write_text("x"), r"changed: requirements\.txt"),
    "an added file": (lambda model: (model / ".git").write_text("x"), r"not signed: \.git"),
    "a file taken away": (lambda model: (model / "requirements.txt").unlink(), "missing: requirements"),
    "no JSON": (lambda model: signature_file(model).write_text("{"), "no bundle"),
    "no signature in it": (lambda model: edit(model, lambda b: b["dsseEnvelope"].update(signatures=[])), "no bundle"),
    "another statement": (lambda model: edit(model, lambda b: b["dsseEnvelope"].update(payload="e30=")), "not one of the pinned"),
    "another key": (
        lambda model: edit(model, lambda b: b["verificationMaterial"]["publicKey"].update(hint="0")),
        "by a key that is not pinned",
    ),
}  # fmt: skip


def edit(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    bundle = json.loads(signature_file(model).read_text())
    change(bundle)
    signature_file(model).write_text(json.dumps(bundle))


@pytest.mark.parametrize(("change", "says"), UNSIGNED.values(), ids=UNSIGNED)
def test_a_model_that_no_pinned_key_signed_as_it_is_is_refused(
    tmp_path: Path, change: Callable[[Path], object], says: str
) -> None:
    model = signed(plain(tmp_path / "model"))
    change(model)
    with pytest.raises(UntrustedSignature, match=says):
        admit_model(model, KEYS)


@pytest.mark.parametrize("keys", [[], [""], ["abc"]], ids=["none", "empty", "no key"])
def test_without_a_pinned_key_no_model_is_loaded(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(UntrustedSignature, match="key"):
        admit_model(signed(plain(tmp_path / "model")), keys)


@pytest.mark.slow
def test_the_marker_proves_something_and_the_process_that_predicts_refuses(tmp_path: Path) -> None:
    model, marker = plain(tmp_path / "model"), tmp_path / "marker"
    a_loader_of_its_own(model, marker)
    predictor = PredictorProcess(KEYS)
    with pytest.raises(Rejected, match="is not loaded: model is not signed"):
        predictor.load(model)
    with pytest.raises(Rejected, match="is not loaded: the model asks to be loaded by 'loader'"):
        predictor.load(signed(model))
    assert not marker.exists()
    home = predictor._home
    predictor.close()
    assert not home.exists()
    code = "import sys, mlflow.pyfunc; mlflow.pyfunc.load_model(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(model)], cwd=tmp_path, capture_output=True, check=False)
    assert marker.exists(), "MLflow alone would have run it"


@pytest.mark.slow
def test_openssf_s_own_tool_verifies_what_we_sign_and_we_what_it_signs(tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    model = signed(plain(tmp_path / "model"))
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(MODELS.key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(MODELS.key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    ours, theirs = signature_file(model), tmp_path / "theirs.sig"

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "model_signing", *arguments, str(model)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    verify = ["verify", "key", "--signature", str(ours), "--public_key", str(public)]
    assert run(*verify).returncode == 0
    assert run("sign", "key", "--signature", str(theirs), "--private_key", str(private)).returncode == 0
    admit_model(model, KEYS, theirs)
    (model / "requirements.txt").write_text("other\n")
    assert run(*verify).returncode != 0
