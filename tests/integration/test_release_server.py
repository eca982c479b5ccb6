"""Releases on the local object server, each step by the identity that has the right to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from safegen.adapters.signing import ModelSigner
from safegen.bootstrap import open_platform, open_reader, open_reader_at
from safegen.cli import main
from safegen.config import load_config
from safegen.errors import StorageError
from safegen.release.audit import read_audit
from safegen.release.channel import move_channel
from safegen.shipped import locate
from tests.signed_releases import MODEL, make_checkpoint, released

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on a local server that stays up, with a release of which the promoter has moved the channel."""
    root = tmp_path_factory.mktemp("run")
    path = root / "run.toml"
    path.write_text(f'workspace = "{root / "work"}"\n' + locate(Path("configs/miniature.toml")).read_text())
    with open_platform(load_config(path)) as platform:
        made = released(
            platform.promoter_store,
            make_checkpoint(root / "new"),
            signer=ModelSigner(platform.signing_key),
            verifier=platform.verifier,
        )
        move_channel(
            platform.promoter_store,
            MODEL,
            "production",
            made.version,
            verifier=platform.verifier,
            who="ci",
            why="passed",
        )
        yield path


def answer_of(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict]:
    code = main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_release_is_verified_and_pulled_by_who_may_only_read(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(config_file)
    public = config.workspace / "keys" / "release.pub"
    uri = "s3://safegen/releases/miniature/1"
    with open_reader(config) as reader, open_reader_at(config, "s3://safegen") as same:
        assert reader.uri == same.uri == "s3://safegen"
        with pytest.raises(StorageError, match="AccessDenied"):
            reader.put("releases/miniature/1/manifest.json", b"{}")
    code, answer = answer_of(capsys, "verify", uri, "--public-key", public, "--config", config_file)
    assert (code, answer["release"]) == (0, "miniature@1")
    code, answer = answer_of(
        capsys, "pull", "miniature@production", tmp_path / "model", "--config", config_file
    )
    assert (code, answer["version"]) == (0, "1")
    assert answer_of(capsys, "verify", tmp_path / "model", "--public-key", public)[0] == 0


def test_the_server_lets_the_promoter_overwrite_an_audit_entry_and_the_log_tells(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_platform(load_config(config_file)) as platform:
        store = platform.promoter_store
        first, last = read_audit(store, MODEL)
        for entry in (first, last):
            kept = store.get(entry.key)
            store.put(entry.key, entry.model_copy(update={"who": "nobody"}).to_bytes())
            code, answer = answer_of(capsys, "releases", MODEL, "--config", config_file)
            assert code == 1
            assert any(entry.key in problem for problem in answer["audit_problems"])
            store.put(entry.key, kept)
        with pytest.raises(StorageError, match="AccessDenied"):
            platform.trainer_store.put(first.key, b"{}")
    assert answer_of(capsys, "releases", MODEL, "--config", config_file)[0] == 0
