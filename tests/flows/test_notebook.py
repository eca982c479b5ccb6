"""The notebook of the documentation, run from its first cell to its last on a short configuration."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from safegen.config import RunConfig
from tests.documented import ROOT
from tests.short_run import Workbench

pytestmark = [pytest.mark.integration, pytest.mark.long]
NOTEBOOK = ROOT / "docs" / "notebooks" / "miniature.ipynb"


def test_the_notebook_runs_from_top_to_bottom(
    object_server: RunConfig, workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "clear the outputs"
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    config = workbench.write_run(policy="lenient")
    parameters.source = f'config = "{config}"\npolicy = "{workbench.folder}/lenient.toml"\nmodel = "short"'

    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

    shown = [_shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "'explicit/nrr_low'" in shown[2]
    assert shown[4] == "('pass', ())"
    assert "checkpoint" in shown[5]
    assert shown[6] == "((48, 48), (48, 48))"
    assert shown[7].startswith("('promoted', {'model': 'short'")
    assert shown[8].startswith("(True, ")
    assert shown[9] == "True"


def _shown(cell: nbformat.NotebookNode) -> str:
    results = (one for one in cell.outputs if one.output_type == "execute_result")
    return " ".join("".join(one.data.get("text/plain", "") for one in results).split())
