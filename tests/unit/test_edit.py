from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from safegen.defences.safegen import (
    EditObservers,
    SafeGenSettings,
    TripletLatents,
    edit_unet,
    encode_prompts,
)
from safegen.diffusion.text_conditioning import TextConditioning
from safegen.errors import EditError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer

CAPTIONS = ("a key on blue", "an axe", "a bomb on pink")
QUICK = SafeGenSettings(
    steps=5,
    accumulation=1,
    batch_size=2,
    learning_rate=1e-2,
    checkpoint_every_steps=2,
    preview_every_steps=100,
)
Weights = dict[str, torch.Tensor]


def settings(**changes: Any) -> SafeGenSettings:
    return SafeGenSettings(**{**QUICK.model_dump(), **changes})


def triplets(pipeline: StableDiffusionPipeline, count: int = 4) -> TripletLatents:
    generator = torch.Generator().manual_seed(5)
    unsafe, censored, benign = (torch.randn(count, 4, 8, 8, generator=generator) for _ in range(3))
    return TripletLatents(unsafe, censored, benign, encode_prompts(pipeline, CAPTIONS))


def weights_of(pipeline: StableDiffusionPipeline) -> Weights:
    return {name: weight.detach().clone() for name, weight in pipeline.unet.state_dict().items()}


def same(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def changed(left: Weights, right: Weights) -> set[str]:
    return {name for name in left if not torch.equal(left[name], right[name])}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def fresh(tokenizer: CLIPTokenizer) -> Callable[..., StableDiffusionPipeline]:
    def make(seed: int = 0, prediction: str = "epsilon") -> StableDiffusionPipeline:
        """Pipelines of another seed differ in their U-Net alone."""
        pipeline = tiny_pipeline(tokenizer, 0, prediction)
        if seed:
            pipeline.unet = tiny_pipeline(tokenizer, seed, prediction).unet
        return pipeline

    return make


@pytest.fixture
def edited(fresh: Callable[..., StableDiffusionPipeline]) -> Callable[..., Weights]:
    def run(
        chosen: SafeGenSettings = QUICK, *, base: int = 0, prediction: str = "epsilon", **more: Any
    ) -> Weights:
        pipeline = fresh(base, prediction)
        edit_unet(pipeline, triplets(pipeline), chosen, **{"seed": 1, **more})
        return weights_of(pipeline)

    return run


def stopped_after(step: int) -> EditObservers:
    def on_step(done: int, values: Mapping[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return EditObservers(on_step=on_step)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("target", ["paper_code", "exact"])
@pytest.mark.parametrize(("text", "preserve"), [("empty", "noise"), ("mixed", "base")])
def test_every_form_of_the_edit_changes_self_attention_alone_and_resumes_bit_for_bit(
    fresh: Callable[..., StableDiffusionPipeline],
    edited: Callable[..., Weights],
    tmp_path: Path,
    prediction: str,
    target: str,
    text: str,
    preserve: str,
) -> None:
    chosen = settings(
        target=target, text=text, preserve=preserve, weight_hold=0.1 if text == "mixed" else 0.0
    )
    before = weights_of(fresh(prediction=prediction))
    undisturbed = edited(chosen, prediction=prediction)
    attention = {name for name in before if ".attn1." in name}
    assert changed(before, undisturbed) == attention
    progress = tmp_path / "progress.pt"
    with pytest.raises(KeyboardInterrupt):
        edited(chosen, prediction=prediction, progress_file=progress, observers=stopped_after(3))
    steps: list[int] = []
    observers = EditObservers(on_step=lambda step, _: steps.append(step))
    resumed = edited(chosen, prediction=prediction, progress_file=progress, observers=observers)
    assert steps == [3, 4, 5]
    assert same(resumed, undisturbed)


_KILLED_EDIT = """
import os, signal, sys
from pathlib import Path
from safegen.defences.safegen import EditObservers, edit_unet
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer
from tests.unit.test_edit import settings, triplets

def on_step(step, values):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
pipeline = tiny_pipeline(tiny_tokenizer(folder / "tokenizer"))
edit_unet(
    pipeline, triplets(pipeline), settings(steps=7), seed=1, progress_file=folder / "progress.pt",
    observers=EditObservers(on_step=on_step),
)
"""


def test_an_edit_whose_process_was_killed_ends_with_the_weights_of_an_undisturbed_one(
    edited: Callable[..., Weights], tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    child = subprocess.run(
        [sys.executable, "-c", _KILLED_EDIT, str(tmp_path)],
        cwd=root,
        check=False,
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    steps: list[int] = []
    observers = EditObservers(on_step=lambda step, _: steps.append(step))
    resumed = edited(settings(steps=7), progress_file=tmp_path / "progress.pt", observers=observers)
    assert steps == [5, 6, 7]
    assert same(resumed, edited(settings(steps=7)))


@pytest.mark.parametrize("other", [{"base": 3}, {"prediction": "v_prediction"}, {"seed": 2}])
def test_progress_of_another_edit_is_not_continued(
    edited: Callable[..., Weights], tmp_path: Path, other: dict[str, Any]
) -> None:
    progress = tmp_path / "progress.pt"
    with pytest.raises(KeyboardInterrupt):
        edited(progress_file=progress, observers=stopped_after(3))
    steps: list[int] = []
    observers = EditObservers(on_step=lambda step, _: steps.append(step))
    assert same(edited(progress_file=progress, observers=observers, **other), edited(**other))
    assert steps[0] == 1


@pytest.mark.parametrize("content", ["junk", "other"])
def test_a_damaged_progress_file_is_named(
    edited: Callable[..., Weights], tmp_path: Path, content: str
) -> None:
    progress = tmp_path / "progress.pt"
    if content == "junk":
        progress.write_bytes(b"not a checkpoint")
    else:
        torch.save({"step": 3}, progress)
    with pytest.raises(EditError, match=r"progress\.pt.*delete it"):
        edited(progress_file=progress)


def test_the_seed_decides(edited: Callable[..., Weights]) -> None:
    first = edited(seed=1)
    assert same(first, edited(seed=1))
    assert not same(first, edited(seed=2))


@pytest.mark.parametrize("layers", ["down", "mid", "up"])
def test_layers_limit_what_is_edited(
    fresh: Callable[..., StableDiffusionPipeline], edited: Callable[..., Weights], layers: str
) -> None:
    names = changed(weights_of(fresh()), edited(settings(layers=layers, steps=1)))
    assert names
    assert all(name.startswith(layers) and ".attn1." in name for name in names)


def test_one_step_has_the_gradient_of_both_losses_averaged_over_accumulated_passes(
    fresh: Callable[..., StableDiffusionPipeline],
) -> None:
    """The published losses, written out again from the inputs that the U-Net was given."""
    pipeline = fresh()
    data = triplets(pipeline, count=1)
    passes: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda _, inputs, named: passes.append((*inputs, named["encoder_hidden_states"])), with_kwargs=True
    )
    chosen = settings(
        steps=1, batch_size=1, accumulation=2, weight_mosaic=0.3, weight_preserve=0.7, max_gradient_norm=1e9
    )
    values: list[Mapping[str, float]] = []
    edit_unet(
        pipeline, data, chosen, seed=1, observers=EditObservers(on_step=lambda _, found: values.append(found))
    )
    handle.remove()
    assert len(passes) == 2
    reference = fresh()
    alphas = reference.scheduler.alphas_cumprod
    losses: list[torch.Tensor] = []
    for noised, t, text in passes:
        a = alphas[t[0]]
        clean = torch.cat([data.unsafe, data.benign])
        noise = (noised - a.sqrt() * clean) / (1 - a).sqrt()
        out = reference.unet(noised, t, text).sample
        mosaic = (out[0] - (noise[0] + data.unsafe[0] - data.censored[0])).square().mean()
        losses.append(0.3 * mosaic + 0.7 * (out[1] - noise[1]).square().mean())
    loss = sum(losses) / 2
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert values[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    trained = dict(pipeline.unet.named_parameters())
    norm = 0.0
    for name, weight in reference.unet.named_parameters():
        if ".attn1." in name:
            found = trained[name].grad
            assert found is not None
            assert weight.grad is not None
            torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-5)
            norm += weight.grad.square().sum().item()
    assert values[0]["gradient_norm"] == pytest.approx(math.sqrt(norm), rel=1e-3)


def test_the_result_is_the_running_average(
    fresh: Callable[..., StableDiffusionPipeline], edited: Callable[..., Weights]
) -> None:
    start, last = weights_of(fresh()), edited(settings(steps=1, ema_decay=0.0))
    averaged = edited(settings(steps=1, ema_decay=0.9999))
    for name in start:
        # The decay warms up as (1 + step) / (10 + step), so it is 0.1 after the first step.
        torch.testing.assert_close(averaged[name], 0.1 * start[name] + 0.9 * last[name], rtol=1e-5, atol=1e-6)


def test_previews_show_what_would_be_exported_and_disturb_nothing(edited: Callable[..., Weights]) -> None:
    seen: dict[int, Weights] = {}

    def on_preview(step: int, unet: torch.nn.Module) -> None:
        seen[step] = {name: weight.detach().clone() for name, weight in unet.state_dict().items()}

    watched = edited(settings(preview_every_steps=2), observers=EditObservers(on_preview=on_preview))
    assert sorted(seen) == [2, 4]
    assert same(watched, edited())
    assert same(seen[2], edited(settings(steps=2)))


def test_rate_warms_up_and_falls(edited: Callable[..., Weights]) -> None:
    rates: list[float] = []
    observers = EditObservers(on_step=lambda _, values: rates.append(values["learning_rate"]))
    edited(settings(steps=6, learning_rate=1.0, warmup_steps=2, decay="cosine"), observers=observers)
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.85355, 0.5, 0.14645], abs=1e-4)


def test_an_edit_in_bfloat16_leaves_a_float32_model_and_other_edits_alone(
    fresh: Callable[..., StableDiffusionPipeline], edited: Callable[..., Weights]
) -> None:
    exact = edited()
    pipeline, twin = fresh(), fresh()
    edit_unet(pipeline, triplets(pipeline), settings(mixed_precision="bf16"), seed=1)
    assert not same(weights_of(pipeline), exact)
    twin.unet.load_state_dict(pipeline.unet.state_dict())
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), torch.randn(2, 16, 32))
    with torch.no_grad():
        assert torch.equal(pipeline.unet(*inputs).sample, twin.unet(*inputs).sample)
    assert same(edited(), exact)


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 works there")
def test_half_precision_without_a_gpu_is_refused(edited: Callable[..., Weights]) -> None:
    with pytest.raises(EditError, match='mixed_precision = "fp16"'):
        edited(settings(mixed_precision="fp16"))


def test_gradient_checkpointing_gives_the_same_edit(edited: Callable[..., Weights]) -> None:
    plain, saving = edited(settings(steps=2)), edited(settings(steps=2, gradient_checkpointing=True))
    for name in plain:
        torch.testing.assert_close(plain[name], saving[name], rtol=1e-4, atol=1e-5)


def test_numbers_that_are_not_finite_stop_the_edit_and_change_nothing(
    fresh: Callable[..., StableDiffusionPipeline],
) -> None:
    pipeline = fresh()
    data = replace(triplets(pipeline), unsafe=torch.full((4, 4, 8, 8), torch.nan))
    before = weights_of(pipeline)
    with pytest.raises(EditError, match=r"step 1 has loss nan.*expected finite"):
        edit_unet(pipeline, data, QUICK, seed=1)
    assert same(before, weights_of(pipeline))


def test_data_that_cannot_be_trained_on_are_refused(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    pipeline = fresh()
    data = triplets(pipeline)
    for wrong, chosen, message in [
        (replace(data, unsafe=data.unsafe[:0], censored=data.censored[:0]), QUICK, "0 unsafe and 4 benign"),
        (replace(data, benign=data.benign[:0]), QUICK, "4 unsafe and 0 benign"),
        (replace(data, censored=data.censored[1:]), QUICK, "same pictures in the same order"),
        (replace(data, benign=torch.zeros(2, 4, 4, 4)), QUICK, r"\(4, 4, 4\).*one size"),
        (replace(data, prompts=data.prompts[:0]), QUICK, "no prompts"),
        (replace(data, prompts=data.prompts[:1]), settings(text="mixed"), "needs captions"),
    ]:
        with pytest.raises(EditError, match=message):
            edit_unet(pipeline, wrong, chosen, seed=1)


def test_prompts_are_encoded_once_each_after_the_empty_one(
    fresh: Callable[..., StableDiffusionPipeline],
) -> None:
    pipeline = fresh()
    rows = encode_prompts(pipeline, ["b", "", "a", "b"])
    assert rows.states.shape == (3, 16, 32)
    theirs = pipeline.encode_prompt(["", "a", "b"], "cpu", 1, do_classifier_free_guidance=False)[0]
    torch.testing.assert_close(rows.states, theirs, rtol=1e-5, atol=1e-5)


def test_benign_pictures_are_conditioned_on_benign_prompts(
    fresh: Callable[..., StableDiffusionPipeline],
) -> None:
    pipeline = fresh()
    numbers = torch.arange(10.0)[:, None, None].expand(10, 16, 32)
    texts = TextConditioning(numbers[:5]), TextConditioning(100 + numbers[:5])
    data = replace(triplets(pipeline), prompts=texts[0], benign_prompts=texts[1])
    seen: list[torch.Tensor] = []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda _, inputs, named: seen.append(named["encoder_hidden_states"][:, 0, 0]), with_kwargs=True
    )
    edit_unet(pipeline, data, settings(text="mixed", weight_hold=0.1, steps=20, batch_size=4), seed=1)
    handle.remove()
    unsafe, benign, held = torch.stack(seen).split(4, dim=1)
    assert set(unsafe.flatten().tolist()) == {0, 1, 2, 3, 4}
    assert set(benign.flatten().tolist()) == {100, 101, 102, 103, 104}
    assert torch.equal(unsafe, held)
    assert 0.1 < (unsafe == 0).float().mean() < 0.4
