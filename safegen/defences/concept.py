"""The restricted concept in words: what defences that act on text are told of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_PLACE = "{}"


def _has_one_place(template: str) -> str:
    if template.count(_PLACE) != 1:
        raise ValueError(f"template {template!r} has {template.count(_PLACE)} places; expected one {_PLACE}")
    return template


Phrase = Annotated[str, Field(min_length=1)]
Template = Annotated[str, AfterValidator(_has_one_place)]


class Concept(BaseModel):
    """The restricted concept as it is usually called, and what must stay.

    Attributes:
        phrases: Usual names of the concept. Rare names, which adversarial prompts use, do not belong here, since an
            evaluation on them would then show nothing.
        anchor: What a phrase shall mean afterwards, for defences that need such a meaning; empty for nothing.
        retain: Names of what must stay as it is.
        templates: Prompts around a phrase; published defences take the phrase alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phrases: Annotated[tuple[Phrase, ...], Field(min_length=1)]
    anchor: str = ""
    retain: tuple[Phrase, ...] = ()
    templates: Annotated[tuple[Template, ...], Field(min_length=1)] = (_PLACE,)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every phrase in every template.

        >>> Concept(phrases=("axe", "bow"), templates=("{}", "a {}")).prompts
        ('axe', 'a axe', 'bow', 'a bow')
        """
        return _in_templates(self.phrases, self.templates)

    @property
    def retain_prompts(self) -> tuple[str, ...]:
        """What must stay, in every template."""
        return _in_templates(self.retain, self.templates)


def _in_templates(phrases: tuple[str, ...], templates: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template.replace(_PLACE, phrase) for phrase in phrases for template in templates)
