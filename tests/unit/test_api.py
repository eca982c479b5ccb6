"""What `import safegen` offers, without running a pipeline; tests/flows runs one."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import safegen
from safegen.adapters.folder_store import FolderStore
from safegen.adapters.signing_keys import PUBLIC_NAME
from safegen.errors import ConfigError, DataError
from tests.signed_releases import KEY, make_checkpoint, pulled, released

NAMES = ("apply_delta", "edit", "evaluate", "gate", "load", "verify")


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("torch", "diffusers", "mlflow", "prefect", "pandas", "boto3")
    code = f"import sys, safegen; safegen.gate; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_found_typed_and_told() -> None:
    assert set(NAMES) < set(dir(safegen))
    for name in NAMES:
        call = getattr(safegen, name)
        signature = inspect.signature(call)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())
        assert {"Args:", "Returns:", "Raises:"} <= set(call.__doc__.split()), name
    with pytest.raises(AttributeError, match="no attribute 'promote_all'"):
        safegen.promote_all  # noqa: B018


def test_the_gate_decides_on_files_and_blocks_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    decision = safegen.gate(tmp_path / "none.json", tmp_path / "checkpoint", "policies/miniature.toml")
    assert not decision.passed
    assert any("none.json" in reason for reason in decision.reasons)
    with pytest.raises(ConfigError, match="no-such"):
        safegen.gate(tmp_path / "none.json", tmp_path / "checkpoint", "no-such.toml")


def test_a_pulled_folder_is_proven_offline(tmp_path: Path) -> None:
    store, folder = FolderStore(tmp_path / "store"), tmp_path / "model"
    version = released(store, make_checkpoint(tmp_path / "checkpoint")).version
    pulled(store, version, folder)
    key = tmp_path / PUBLIC_NAME
    key.write_bytes(KEY.public_key_pem)
    found = safegen.verify(folder, public_keys=[key])
    assert found.valid
    (folder / "model_index.json").write_text("{}")
    assert not safegen.verify(str(folder), public_keys=[str(key)]).valid
    with pytest.raises(DataError, match="no such folder"):
        safegen.verify(tmp_path / "nowhere", public_keys=[key])
