"""What every weight edit must do: the same after a kill, nothing to the model that was given, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from safegen.defences.concept import Concept
from safegen.defences.defence import ProtectedModel
from safegen.defences.edit_loop import EditObservers
from safegen.defences.weight_edit import EditedWeights, WeightEdit

CONCEPT = Concept(
    phrases=("axe", "bomb"), retain=("bell", "a blue key"), templates=("{}", "a {} on blue"), anchor="star"
)
Weights = dict[str, torch.Tensor]


def weights_of(pipeline: StableDiffusionPipeline) -> Weights:
    """Return copies of all weights, by part and name."""
    return {
        f"{part}/{name}": weight.detach().clone()
        for part in ("unet", "text_encoder", "vae")
        for name, weight in getattr(pipeline, part).state_dict().items()
    }


def changed(left: Weights, right: Weights) -> set[str]:
    assert left.keys() == right.keys()
    return {name for name in left if not torch.equal(left[name], right[name])}


def edited(edit: WeightEdit, pipeline: StableDiffusionPipeline) -> Weights:
    edit.edit(pipeline)
    assert all(torch.isfinite(weight).all() for weight in weights_of(pipeline).values())
    assert not any(
        weight.requires_grad for part in edit.parts for weight in getattr(pipeline, part).parameters()
    )
    return weights_of(pipeline)


def assert_resumes(
    edit: WeightEdit, fresh: Callable[[], StableDiffusionPipeline], folder: Path, *, steps: int, kept: int
) -> None:
    """Kill an edit one step after it kept progress at step `kept`, go on, and compare bit for bit."""
    undisturbed = edited(edit, fresh())

    def killed(step: int, values: Mapping[str, float]) -> None:
        assert values
        if step == kept + 1:
            raise KeyboardInterrupt

    progress = folder / "progress.pt"
    with pytest.raises(KeyboardInterrupt):
        edit.edit(fresh(), progress_file=progress, observers=EditObservers(on_step=killed))
    seen: list[int] = []
    pipeline = fresh()
    observers = EditObservers(on_step=lambda step, _: seen.append(step))
    edit.edit(pipeline, progress_file=progress, observers=observers)
    assert seen == list(range(kept + 1, steps + 1))
    assert not changed(undisturbed, weights_of(pipeline))


def assert_protects_a_copy(edit: WeightEdit, pipeline: StableDiffusionPipeline) -> None:
    """Protect a model, and find the given one as it was, and the new one changed in the edit's parts alone."""
    before = weights_of(pipeline)
    own = dict(pipeline.components)
    given = ProtectedModel("0" * 64, pipeline)
    protected = EditedWeights(edit).protect(given)
    assert not changed(before, weights_of(pipeline))
    assert dict(pipeline.components) == own
    touched = changed(before, weights_of(protected.pipeline))
    assert {name.partition("/")[0] for name in touched} == set(edit.parts)
    assert protected.sha256 != given.sha256
    assert EditedWeights(edit).protect(given).sha256 == protected.sha256
