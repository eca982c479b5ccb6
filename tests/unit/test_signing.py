"""Keys and signatures: what is made, what is refused, and that OpenSSF's own verifier agrees."""

from __future__ import annotations

import base64
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.memory_kms import MemoryKmsKey
from safegen.adapters.signing import ModelSigner, ModelVerifier
from safegen.adapters.signing_keys import (
    PemKey,
    create_key_pair,
    key_id,
    open_key_pair,
    read_private_key,
    read_public_key,
)
from safegen.config import PromoteSection, RunConfig, load_config
from safegen.errors import ConfigError, ReleaseRefusedError, StorageError
from safegen.release_keys import open_signing_key, open_verifier, public_key_file
from tests.signed_releases import make_checkpoint, pulled, released

DIGESTS = {"unet/a.safetensors": "a" * 64, "model_index.json": "b" * 64}


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def with_signing(workspace: Path, signing: dict[str, str], trusted: tuple[Path, ...] = ()) -> RunConfig:
    promote = PromoteSection.model_validate({"signing": signing, "trusted_keys": trusted})
    shipped = load_config(Path("configs/miniature.toml"))
    return shipped.model_copy(update={"workspace": workspace, "promote": promote})


def test_a_new_pair_is_the_owners_alone_and_is_never_overwritten(tmp_path: Path) -> None:
    pair = create_key_pair(tmp_path / "new" / "keys")
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    assert pair.key_id == key_id(read_public_key(pair.public))
    before = pair.private.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        create_key_pair(tmp_path / "new" / "keys")
    pair.public.unlink()
    with pytest.raises(ConfigError, match="never overwritten"):
        create_key_pair(tmp_path / "new" / "keys")
    assert pair.private.read_bytes() == before
    assert [path.name for path in pair.private.parent.iterdir()] == ["release.key"]


def test_a_pair_opened_by_many_at_once_is_one_pair(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: open_key_pair(tmp_path).public_key_pem, range(16)))
    assert found == {read_public_key(tmp_path / "release.pub")}


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "no unencrypted PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no unencrypted PEM"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "expected EC P-256"),
        (pem_of(rsa.generate_private_key(65537, 2048)), "expected EC P-256"),
    ],
    ids=["empty", "garbage", "p384", "rsa"],
)
def test_another_key_is_refused_and_never_shown(pem: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        PemKey(pem, "here")
    assert "BEGIN" not in str(raised.value)


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    pair = create_key_pair(tmp_path)
    pair.private.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_private_key(pair.private)


def test_a_private_key_is_no_public_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no PEM public key"):
        read_public_key(create_key_pair(tmp_path).private)


def test_a_signature_vouches_for_these_files_by_this_key() -> None:
    key = MemoryKmsKey()
    signed = ModelVerifier([key.public_key_pem]).verify(ModelSigner(key).sign("sd@1", DIGESTS))
    assert (signed.subject, dict(signed.digests)) == ("sd@1", DIGESTS)
    assert signed.key_id == key_id(key.public_key_pem)


def altered(signature: bytes, change) -> bytes:
    bundle = json.loads(signature)
    change(bundle)
    return json.dumps(bundle).encode()


def _other_statement(bundle: dict) -> None:
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"sd@1", b"sd@2")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_statement, "does not fit under key"),
        (lambda b: b["verificationMaterial"]["publicKey"].pop("hint"), "is no model signature"),
        (lambda b: b["verificationMaterial"]["publicKey"].update(hint="0" * 64), "not trusted"),
        (lambda b: b["dsseEnvelope"]["signatures"][0].update(sig=""), "does not fit"),
        (lambda b: b["dsseEnvelope"]["signatures"].clear(), "is no model signature"),
        (lambda b: b["dsseEnvelope"].update(payload="%"), "is no model signature"),
        (lambda b: b["dsseEnvelope"].update(payloadType="text/plain"), "is no model signature"),
        (lambda b: b.update(mediaType="application/json"), "is no model signature"),
        (lambda b: b.clear(), "is no model signature"),
    ],
    ids=[
        "statement",
        "no-hint",
        "other-hint",
        "empty-signature",
        "no-signature",
        "payload",
        "payload-type",
        "media-type",
        "empty",
    ],
)
def test_an_altered_signature_is_refused(change, message: str) -> None:
    key = MemoryKmsKey()
    signature = altered(ModelSigner(key).sign("sd@1", DIGESTS), change)
    with pytest.raises(ReleaseRefusedError, match=message):
        ModelVerifier([key.public_key_pem]).verify(signature)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"null", b"[" * 100_000], ids=["empty", "bytes", "list", "null", "deep"]
)
def test_what_is_no_signature_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(ReleaseRefusedError, match="is no model signature"):
        ModelVerifier([MemoryKmsKey().public_key_pem]).verify(data)


def test_a_service_that_signs_with_another_key_than_it_says_is_found_out() -> None:
    class Confused:
        public_key_pem = MemoryKmsKey().public_key_pem

        def sign(self, digest: bytes) -> bytes:
            return MemoryKmsKey().sign(digest)

    with pytest.raises(StorageError, match="its own public key does not accept"):
        ModelSigner(Confused()).sign("sd@1", DIGESTS)


def test_openssf_model_signing_verifies_a_pulled_folder(tmp_path: Path) -> None:
    from model_signing import verifying

    store, pair = FolderStore(tmp_path / "store"), create_key_pair(tmp_path / "keys")
    verifier = ModelVerifier([read_public_key(pair.public)])
    signer = ModelSigner(read_private_key(pair.private))
    released(store, make_checkpoint(tmp_path / "new"), signer=signer, verifier=verifier)
    folder = tmp_path / "pulled"
    pulled(store, "1", folder, verifier)

    theirs = verifying.Config().use_elliptic_key_verifier(public_key=pair.public)
    theirs.verify(folder, folder / "signature.json")
    (folder / "MODEL_CARD.md").write_text("another")
    with pytest.raises(ValueError, match=r"Hash mismatch for 'MODEL_CARD\.md'"):
        verifying.Config().use_elliptic_key_verifier(public_key=pair.public).verify(
            folder, folder / "signature.json"
        )


@pytest.mark.parametrize("kind", ["file", "env", "kms", "workspace"])
def test_each_source_of_a_key_signs_what_its_public_file_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pair = create_key_pair(tmp_path / "keys")
    monkeypatch.setenv("RELEASE_PEM", pair.private.read_text())
    signing = {
        "file": {"kind": "file", "private_key": str(pair.private)},
        "env": {"kind": "env", "variable": "RELEASE_PEM"},
        "kms": {"kind": "kms", "hook": "safegen.adapters.memory_kms:open_key", "key": "alias/release"},
        "workspace": {"kind": "file"},
    }[kind]
    config = with_signing(tmp_path / "work", signing)
    key = open_signing_key(config)
    signature = ModelSigner(key).sign("sd@1", DIGESTS)
    public = public_key_file(config, key)
    assert public_key_file(config, open_signing_key(config)) == public
    assert open_verifier(config, [public]).verify(signature).subject == "sd@1"
    trusting = with_signing(tmp_path / "other", {"kind": "file"}, (public,))
    assert open_verifier(trusting).verify(signature).subject == "sd@1"
    made = list((tmp_path / "work" / "keys").iterdir())
    assert [path.name for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077 == 0] == (
        ["release.key"] if kind == "workspace" else []
    )


@pytest.mark.parametrize(
    ("signing", "message"),
    [
        ({"kind": "env", "variable": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"kind": "file", "private_key": "/nowhere/release.key"}, "cannot read private key"),
        ({"kind": "kms", "hook": "no_such_module:open", "key": "k"}, "cannot be imported"),
        ({"kind": "kms", "hook": "json:no_such_function", "key": "k"}, "cannot be imported"),
    ],
    ids=["env", "file", "module", "function"],
)
def test_a_key_that_cannot_be_had_is_a_clear_error(
    tmp_path: Path, signing: dict[str, str], message: str
) -> None:
    config = with_signing(tmp_path, signing)
    with pytest.raises(ConfigError, match=message):
        open_signing_key(config)
    with pytest.raises(ConfigError, match="no public key to trust"):
        open_verifier(config)


def test_a_consumer_without_any_key_is_told_so_and_no_key_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no public key to trust"):
        open_verifier(with_signing(tmp_path / "new", {"kind": "file"}))
    assert not os.path.lexists(tmp_path / "new")
