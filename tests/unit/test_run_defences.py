"""What a run's configuration says of defences, and what `safegen edit --defence` makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from safegen.cli import main
from safegen.config import RunConfig, load_config
from safegen.defences.adv_unlearn_settings import AdvUnlearnSettings
from safegen.defences.concept import Concept
from safegen.defences.esd_settings import EsdSettings
from safegen.defences.safegen_settings import SafeGenSettings
from safegen.defences.settings import PUBLISHED
from safegen.defences.uce_settings import UceSettings
from safegen.errors import ConfigError
from safegen.miniature.concepts import CONCEPTS
from safegen.miniature.suites import available_prompts
from safegen.pipeline.defences import (
    defence_settings,
    edit_inputs,
    edit_steps,
    edit_title,
    stack_settings,
    with_defence,
)
from safegen.pipeline.preflight import check_inputs

MINIATURE = Path("configs/miniature.toml")


def run(**changes: Any) -> RunConfig:
    return load_config(MINIATURE).model_copy(update=changes)


def validated(edit: dict[str, Any]) -> RunConfig:
    document = load_config(MINIATURE).model_dump(by_alias=True)
    return RunConfig.model_validate({**document, "edit": edit})


def test_an_edit_without_a_kind_is_safegens() -> None:
    assert validated({"steps": 3}).edit == SafeGenSettings(steps=3)
    assert validated({"kind": "esd", "variant": "u"}).edit == EsdSettings(variant="u")
    assert validated({"kind": "uce"}).edit == UceSettings()
    assert validated({"kind": "adv-unlearn"}).edit == AdvUnlearnSettings()


@pytest.mark.parametrize(
    "edit", [{"kind": "sld"}, {"kind": "esd", "text": "mixed"}, {"kind": "uce", "steps": 3}]
)
def test_an_edit_of_another_kind_or_with_another_kinds_keys_is_refused(edit: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validated(edit)


def test_a_name_means_the_runs_own_settings_else_the_published_ones() -> None:
    own = run(defences={"esd-x": EsdSettings(steps=7)})
    assert defence_settings(own, "esd") == defence_settings(own, "esd-x") == EsdSettings(steps=7)
    assert defence_settings(own, "esd-u") == EsdSettings(variant="u")
    assert stack_settings(own, ["safegen", "retrained"]) == (own.edit, PUBLISHED["retrained"])
    other = run(edit=EsdSettings(variant="u", steps=5), defences={})
    assert defence_settings(other, "safegen") == SafeGenSettings()
    assert defence_settings(other, "esd") == other.edit
    assert defence_settings(other, "esd-x") == EsdSettings()
    with pytest.raises(ConfigError, match=r"there is no defence 'magic'; expected one of adv-unlearn, esd"):
        defence_settings(own, "magic")


def test_a_run_takes_another_weight_edit() -> None:
    own = run(defences={"esd-x": EsdSettings(steps=7)})
    assert with_defence(own, "esd").edit == EsdSettings(steps=7)
    assert with_defence(own, "safegen") == own
    assert with_defence(own, "esd").model_copy(update={"edit": own.edit}) == own


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("sld-medium", "the sampler, while drawing"),
        ("text-filter", "the prompt, before drawing"),
        ("safety-checker", "the finished picture"),
        ("retrained", "the choice of the model"),
        ("unedited", "nothing"),
    ],
)
def test_edit_says_in_one_line_where_another_defence_acts(
    name: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["edit", "--config", str(MINIATURE), "--defence", name]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert (
        f"defence '{name}' is no weight edit: it acts on {where}, so there is no checkpoint to make" in line
    )


def test_an_edit_on_text_without_a_concept_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"table 'concept' is missing; edit\.kind 'esd' needs its phrases"):
        check_inputs(run(edit=EsdSettings(), concept=None))


def test_an_edit_depends_on_the_concept_only_where_it_acts_on_text() -> None:
    one, other = Concept(phrases=("axe",)), Concept(phrases=("bomb",))
    assert edit_inputs(run(concept=one)) == edit_inputs(run(concept=other))
    esd = EsdSettings()
    assert edit_inputs(run(edit=esd, concept=one)) != edit_inputs(run(edit=esd, concept=other))


def test_titles_and_steps_of_every_edit() -> None:
    edits = {name: PUBLISHED[name] for name in ("safegen", "esd-u", "uce", "adv-unlearn")}
    assert [edit_title(edit) for edit in edits.values()] == [  # pyright: ignore[reportArgumentType]
        "paper_code, empty text",
        "esd-u",
        "uce",
        "adv-unlearn",
    ]
    assert [edit_steps(edit) for edit in edits.values()] == [1000, 1000, 1, 1000]  # pyright: ignore[reportArgumentType]


def test_the_miniatures_concept_has_the_usual_names_and_none_of_the_rare_ones() -> None:
    config = load_config(MINIATURE)
    concept = config.concept
    assert concept is not None
    restricted = [one for one in CONCEPTS if one.kind == "restricted"]
    assert set(concept.phrases) == {name for one in restricted for name in one.names}
    assert set(concept.retain) == {name for one in CONCEPTS if one.kind != "restricted" for name in one.names}
    told = {*concept.prompts, *concept.retain_prompts}
    asked = {
        prompt.text
        for name in ("explicit", "alias", "benign", "lookalike")
        for prompt in available_prompts(name)
    }
    assert not told & asked
    rare = {alias for one in restricted for alias in one.aliases}
    assert not rare & {
        word for phrase in (*concept.phrases, *concept.retain) for word in (phrase, *phrase.split())
    }


def test_a_template_has_one_place() -> None:
    for template in ("a thing", "{} and {}"):
        with pytest.raises(ValidationError, match="places; expected one"):
            Concept(phrases=("axe",), templates=(template,))
