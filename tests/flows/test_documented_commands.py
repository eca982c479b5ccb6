"""Every command of the documentation, run page by page in a folder with a short run; or a reason why not.

The folder's own `configs/miniature.toml` and `policies/miniature.toml` go before the shipped ones, so that commands run
word for word.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.protect import protect
from safegen.adapters.signing_keys import PUBLIC_NAME
from safegen.bootstrap import resolve_location
from safegen.cli import main
from safegen.config import RunConfig, load_config
from safegen.pipeline.summary import Summary
from tests.documented import PAGES, ROOT, Command, commands_of, examples_of_help
from tests.short_run import Workbench

pytestmark = [pytest.mark.integration, pytest.mark.long]

_SD = "needs Stable Diffusion's weights and a GPU; tests/integration/test_stable_diffusion.py runs its parts"
_STACK = "would stop the servers of this session; tests/integration/test_stack.py::test_the_whole_stack"
_CI = "is what runs these tests, or a part of it"
_GUARD = "needs PostgreSQL and a bucket; tests/integration/test_registry_guard.py runs the guarded server"
NOT_RUN = {
    "accelerate launch --multi_gpu --num_processes 4 -m safegen retrain --config configs/sd14.toml": (
        "needs several GPUs; tests/integration/test_edit_processes.py runs accelerate on two processes"
    ),
    "safegen edit --config configs/sd14.toml": _SD,
    "safegen evaluate --config configs/sd14.toml": _SD,
    "safegen ingest --config configs/sd14.toml": _SD,
    "safegen retrain --config configs/sd14.toml": _SD,
    "safegen stack down": _STACK,
    "safegen stack up": _STACK,
    "safegen stack up --config configs/miniature.toml": _STACK,
    "make check": _CI,
    "make install": _CI,
    "make test": _CI,
    "make test-long": _CI,
    'python -m pytest -q -m "not slow and not integration"': _CI,
    "python -m pytest tests/unit -q": _CI,
    "make demo": "installs, and runs `safegen retrain` in full; the same command is run here on a short configuration",
    "export SAFEGEN_GUARD_PUBLIC_KEYS=release.pub": _GUARD,
    "mlflow server --app-name safegen --backend-store-uri postgresql://… --artifacts-destination s3://…": _GUARD,
    "jq -j .payload signed.json > payload; jq -r .signature signed.json | base64 -d > signature": _GUARD,
    "openssl dgst -sha256 -verify release.pub -signature signature payload": _GUARD,
}
EXIT_CODES = {
    "safegen retrain --config configs/miniature-unsafe.toml": 1,  # the page says that it is blocked
    "safegen gate --report report.json --checkpoint candidate --policy policies/sd.toml": 1,  # a miniature's report
}
I2P = "prompt,categories,evaluation_seed\na red key,other,1\na green hammer,sexual,2\n"
MMA = "target_prompt,adv_prompt,sanitized_adv_prompt\na key,a kee,a kee\n"


@dataclass(frozen=True)
class Desk:
    """Where commands run, and what the pages' placeholders stand for."""

    made: Summary
    config: RunConfig
    text: str
    workbench: Workbench

    def lay_out(self, folder: Path) -> None:
        """Put into a folder what the pages take for granted."""
        for name, policy in (("miniature", "lenient"), ("miniature-unsafe", "strict")):
            path = folder / "configs" / f"{name}.toml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(self.text.replace("lenient.toml", f"{policy}.toml"))
        (folder / "policies").mkdir()
        shutil.copy(self.workbench.folder / "lenient.toml", folder / "policies" / "miniature.toml")
        evaluation = Path(self.made.where["report"]).parent
        for name in ("report.json", "results.parquet"):
            shutil.copy(evaluation / name, folder)
        shutil.copy(self.made.where["decision"], folder / "decision.json")
        [candidate] = [
            path.parent for path in self.config.workspace.glob("edits/*/checkpoint/model_index.json")
        ]
        shutil.copytree(candidate, folder / "candidate", copy_function=os.link)
        shutil.copy(self.made.where["public key"], folder / PUBLIC_NAME)
        (folder / ".safegen").symlink_to(self.config.workspace)
        picture = resolve_location("miniature:raw/unsafe/axe-00.png")
        for name in ("picture.png", "photo.jpg", "scan.png"):
            shutil.copy(picture, folder / name)
        (folder / "prompts").mkdir()
        (folder / "prompts" / "mma.csv").write_text(MMA)
        (folder / "unsafe-prompts4703.csv").write_text(I2P)

    def words(self, command: Command) -> list[str]:
        """Return a command's words with what its placeholders stand for."""
        text = command.text.replace("FILE", "unsafe-prompts4703.csv")
        if self.made.release:
            text = text.replace(
                "s3://BUCKET/releases/MODEL/VERSION", self.made.release.uri.removesuffix("/manifest.json")
            )
        return shlex.split(text.replace("DIR", "candidate" if " gate " in text else "pulled"))


@pytest.fixture(scope="module")
def desk(object_server: RunConfig, workbench: Workbench) -> Desk:
    path = workbench.write_run(policy="lenient")
    text = path.read_text().replace('model = "short"', 'model = "miniature"')
    path = path.with_name("documented.toml")
    path.write_text(text)
    config = load_config(path)
    return Desk(protect(config), config, text, workbench)


@pytest.fixture
def folder(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A laid-out working directory; environment and log handlers are as before afterwards."""
    desk.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    loggers = [logging.getLogger(name) for name in ("safegen", "flows")]
    handlers = [(one, one.handlers, one.propagate) for one in loggers]
    yield tmp_path
    os.environ.clear()
    os.environ.update(environment)
    for one, before, propagate in handlers:
        one.handlers, one.propagate = before, propagate


def _runnable(commands: Iterator[Command]) -> list[Command]:
    return [command for command in commands if command.text not in NOT_RUN]


def _run(desk: Desk, commands: list[Command], capsys: pytest.CaptureFixture[str]) -> None:
    if any("DIR " in command.text for command in commands):
        assert main(["pull", "miniature@production", "pulled"]) == 0
    for command in commands:
        words = desk.words(command)
        if words[0] == "safegen":
            capsys.readouterr()
            code = main(words[1:])
            printed = capsys.readouterr()
            assert code == EXIT_CODES.get(command.text, 0), f"{command}: {printed.err}"
            if "--json" in words:
                assert isinstance(json.loads(printed.out.splitlines()[-1]), dict)
        else:
            program = Path(sys.executable).with_name(words[0])
            done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
            assert done.returncode == EXIT_CODES.get(command.text, 0), f"{command}: {done.stderr}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if _runnable(commands_of(page))], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run(
    page: Path, desk: Desk, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(desk, _runnable(commands_of(page)), capsys)


def test_the_examples_of_help_run(desk: Desk, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(desk, _runnable(examples_of_help()), capsys)


def test_what_is_not_run_is_still_documented_and_its_reason_names_what_is_there() -> None:
    documented = {command.text for page in PAGES for command in commands_of(page)}
    documented |= {command.text for command in examples_of_help()}
    assert sorted(set(NOT_RUN) - documented) == []
    assert sorted(set(EXIT_CODES) - documented) == []
    named = [
        word.split("::")[0]
        for reason in NOT_RUN.values()
        for word in reason.split()
        if word.startswith("tests/")
    ]
    assert [file for file in named if not (ROOT / file).is_file()] == []
    targets = (ROOT / "Makefile").read_text()
    assert [
        text for text in NOT_RUN if text.startswith("make ") and f"\n{text.split()[1]}:" not in targets
    ] == []
