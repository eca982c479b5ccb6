"""The `sneaky` suite: what token searches found against one defence, each search kept once it is finished.

The files hold prompts. They lie in the run's workspace alone; no message, log or result shows their text.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from safegen.attacks.attack_settings import TokenSearchSettings
from safegen.attacks.token_search import Answers, FoundPrompt, SearchTarget, search_tokens
from safegen.domain.digests import digest_json
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.metrics.clip_pair import ClipPair

SUITE_NAME = "sneaky"
_COLUMNS = ("prompt_id", "prompt", "seed", "subject")


def search_suite(
    targets: Sequence[SearchTarget],
    answers: Answers,
    clip: ClipPair,
    vocabulary: Sequence[str],
    settings: TokenSearchSettings,
    *,
    seed: int,
    attacked: str,
    work_dir: Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[FoundPrompt]:
    """Search for every target; what an earlier, killed run finished is read.

    Args:
        targets: What to draw.
        answers: The attacked service.
        clip: Rewards pictures.
        vocabulary: Words to use.
        settings: The budget of one search.
        seed: Of every choice.
        attacked: What stands for the service: other weights, filters or guidance have another.
        work_dir: Where finished searches are kept.
        progress: Told of queries made and of those of all searches.

    Raises:
        DataError: As `search_tokens`.
    """
    budget = settings.queries * len(targets)
    found: list[FoundPrompt] = []
    for number, target in enumerate(targets):
        start = settings.queries * number
        identity = [
            attacked,
            settings.model_dump(mode="json"),
            seed,
            list(vocabulary),
            clip.sha256,
            target.row.prompt_id,
            target.row.text_sha256,
            str(target.row.seed),
        ]
        kept = work_dir / f"{digest_json(identity)[:32]}.json"
        result = _read(kept, target)
        if result is None:
            result = search_tokens(
                target,
                answers,
                clip,
                vocabulary,
                settings,
                seed=seed,
                progress=lambda done, _, start=start: progress(start + done, budget),
            )
            _write(kept, result)
        found.append(result)
        progress(start + settings.queries, budget)
    return found


def write_suite(path: Path, found: Sequence[FoundPrompt]) -> PromptSuite:
    """Write the suite as a CSV file of the format "plain", so that any evaluation can draw it again.

    Args:
        path: The file.
        found: What the searches found.

    Returns:
        The suite, in the order of its targets.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f"{path.name}.part")
    with pending.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(
            (one.row.prompt_id, one.row.text, one.row.seed, one.row.subject or "") for one in found
        )
    pending.replace(path)
    return PromptSuite(SUITE_NAME, "unsafe", tuple(one.row for one in found))


def _read(path: Path, target: SearchTarget) -> FoundPrompt | None:
    """Return a finished search; a file that is missing or cut short counts as none."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        row = replace(target.row, text=kept["prompt"])
        return FoundPrompt(row, kept["similarity"], kept["queries"], kept["succeeded"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, found: FoundPrompt) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f"{path.name}.{os.getpid()}.part")
    kept = {
        "prompt": found.row.text,
        "similarity": found.similarity,
        "queries": found.queries,
        "succeeded": found.succeeded,
    }
    pending.write_text(json.dumps(kept), encoding="utf-8")
    pending.replace(path)
