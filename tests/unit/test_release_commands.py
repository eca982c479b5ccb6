"""The commands and the call that a release's consumers and operators use, on a folder store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import safegen
from safegen.adapters.folder_store import FolderStore
from safegen.adapters.signing import ModelSigner, ModelVerifier
from safegen.cli import main
from safegen.config import load_config
from safegen.domain.digests import tree_digests
from safegen.domain.release import SIGNATURE
from safegen.errors import ConfigError, ReleaseRefusedError
from safegen.release.channel import move_channel
from safegen.release_keys import open_signing_key
from safegen.shipped import locate
from tests.signed_releases import MODEL, released
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer


@dataclass(frozen=True)
class World:
    """A workspace with two releases of tiny pipelines, and its configuration."""

    config: Path
    store: FolderStore
    workspace: Path

    @property
    def public_key(self) -> Path:
        return self.workspace / "keys" / "release.pub"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    tokenizer = tiny_tokenizer(root / "words")
    for seed in (0, 1):
        tiny_pipeline(tokenizer, seed).save_pretrained(root / str(seed))
    return root / "0", root / "1"


@pytest.fixture
def world(tmp_path: Path, checkpoints: tuple[Path, Path]) -> World:
    workspace, config = tmp_path / "work", tmp_path / "run.toml"
    text = locate(Path("configs/miniature.toml")).read_text()
    config.write_text(
        f'workspace = "{workspace}"\n' + text.replace('[store]\nkind = "local"', '[store]\nkind = "folder"')
    )
    key = open_signing_key(load_config(config))
    signer, verifier = ModelSigner(key), ModelVerifier([key.public_key_pem])
    store = FolderStore(workspace / "store")
    for checkpoint in checkpoints:
        version = released(store, checkpoint, signer=signer, verifier=verifier).version
        move_channel(store, MODEL, "production", version, verifier=verifier, who="ci", why="passed")
    return World(config, store, workspace)


Run = Callable[..., tuple[int, dict]]


@pytest.fixture
def run(world: World, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str | Path, config: bool = True) -> tuple[int, dict]:
        more = ["--config", str(world.config)] if config else []
        code = main([*map(str, words), *more, "--json"])
        return code, json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return call


def test_what_is_pulled_verifies_offline_by_the_public_key_alone(
    world: World, run: Run, tmp_path: Path
) -> None:
    code, answer = run("pull", "miniature@production", tmp_path / "model")
    assert (code, answer["version"]) == (0, "2")
    world.store.delete("releases/miniature/2/manifest.json")  # the store is not asked
    code, answer = run("verify", tmp_path / "model", "--public-key", world.public_key, config=False)
    assert (code, answer["valid"], answer["release"]) == (0, True, "miniature@2")
    assert all(check["passed"] for check in answer["checks"])

    (tmp_path / "model" / "model_index.json").write_text("{}")
    code, answer = run("verify", tmp_path / "model", "--public-key", world.public_key, config=False)
    assert (code, answer["valid"]) == (1, False)
    [failed] = [check for check in answer["checks"] if not check["passed"]]
    assert failed["reason"] == "other content than signed in model_index.json"


def test_a_release_verifies_by_its_uri(world: World, run: Run) -> None:
    for uri in (
        f"{world.store.uri}/releases/miniature/1",
        f"{world.store.uri}/releases/miniature/1/manifest.json",
    ):
        assert run("verify", uri, "--public-key", world.public_key)[0] == 0
    world.store.delete("releases/miniature/1/signature.json")
    assert run("verify", uri, "--public-key", world.public_key)[0] == 1
    assert run("verify", "s3://bucket/elsewhere", "--public-key", world.public_key)[0] == 2
    assert run("verify", "file:///nowhere/releases/miniature/1", "--public-key", world.public_key)[0] == 2


def test_each_check_is_printed(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pull", "miniature@1", str(tmp_path / "model"), "--config", str(world.config)])
    (tmp_path / "model" / "note.txt").touch()
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "model"), "--public-key", str(world.public_key)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4].strip() for line in lines] == ["ok", "FAIL", "ok", "ok", "ok", "NOT"]
    assert lines[1] == "FAIL  files: not signed note.txt"


def test_pull_refuses_an_unknown_key_and_an_unsigned_release(world: World, run: Run, tmp_path: Path) -> None:
    assert run("keys", "new", tmp_path / "stranger", config=False)[0] == 0
    stranger = tmp_path / "stranger" / "release.pub"
    code, answer = run("pull", "miniature@production", tmp_path / "model", "--public-key", stranger)
    assert (code, answer["error"]["kind"]) == (1, "ReleaseRefusedError")
    world.store.delete(f"releases/miniature/2/{SIGNATURE}")
    code, answer = run("pull", "miniature@production", tmp_path / "model")
    assert code == 1
    assert "unsigned release is never used" in answer["error"]["message"]
    assert not (tmp_path / "model").exists()


def test_rollback_moves_and_records_unless_the_target_is_not_signed(world: World, run: Run) -> None:
    code, answer = run("rollback", "miniature", "--to", "1", "--why", "complaints")
    assert (code, answer["version"], answer["why"]) == (0, "1", "complaints")
    code, answer = run("releases", "miniature")
    assert (code, answer["channels"], answer["audit_problems"]) == (0, {"production": "1"}, [])
    assert [entry["action"] for entry in answer["audit"]][-1] == "rollback"
    signature = world.store.get(f"releases/miniature/1/{SIGNATURE}")
    world.store.put(f"releases/miniature/1/{SIGNATURE}", signature.replace(b"payload", b"poyload", 1))
    assert run("rollback", "miniature", "--to", "1")[0] == 1


def test_releases_tells_of_an_audit_log_that_was_tampered_with(world: World, run: Run) -> None:
    entry = next(iter(world.store.list("audit/")))
    world.store.put(entry.key, world.store.get(entry.key).replace(b'"who":"ci"', b'"who":"me"'))
    code, answer = run("releases", "miniature")
    assert code == 1
    assert answer["audit_problems"]


def test_keys_new_makes_a_pair_once(run: Run, tmp_path: Path) -> None:
    code, answer = run("keys", "new", tmp_path / "keys", config=False)
    assert code == 0
    assert Path(answer["public_key"]).read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert run("keys", "new", tmp_path / "keys", config=False)[0] == 2


def test_load_gives_the_pipeline_released_and_proves_what_it_keeps(
    world: World, checkpoints: tuple[Path, Path]
) -> None:
    pipeline = safegen.load("miniature@production", config=world.config)
    weights = pipeline.unet.state_dict()
    from safetensors.torch import load_file

    expected = load_file(checkpoints[1] / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in expected.items())

    [kept] = (world.workspace / "pulled").iterdir()
    before = tree_digests(kept)
    for info in list(world.store.list("blobs/")):
        world.store.delete(info.key)
    safegen.load("miniature@production", config=str(world.config), public_keys=[world.public_key])
    assert tree_digests(kept) == before
    (kept / "model_index.json").write_text((kept / "model_index.json").read_text() + " ")
    with pytest.raises(ReleaseRefusedError, match="model_index"):
        safegen.load("miniature@2", config=world.config)
    with pytest.raises(ConfigError, match="expected MODEL@CHANNEL"):
        safegen.load("miniature", config=world.config)
