"""Stage 4: the base model is edited on the triplets; the result is a candidate checkpoint."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.bootstrap import Platform, processes
from safegen.data.manifest import read_triplets
from safegen.data.picture import get_picture
from safegen.defences.opening import open_edit
from safegen.domain.dataset import TripletRecord
from safegen.domain.digests import digest_json, tree_digest
from safegen.domain.release import RELEASE_DOCUMENTS
from safegen.errors import EditError
from safegen.pipeline.defences import defence_parts, edit_inputs, edit_steps
from safegen.pipeline.followers import EditJob, followed
from safegen.pipeline.outcomes import Edited, Triplets
from safegen.pipeline.previews import PreviewSheet
from safegen.pipeline.run_texts import edit_description, edit_label
from safegen.ports import TrackedRun
from safegen.progress import progress_bar

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from safegen.defences.safegen import TripletLatents
    from safegen.defences.weight_edit import WeightEdit

_SYSTEM_METRICS_INTERVAL_S = 10.0


def run_edit(platform: Platform, triplets: Triplets) -> Edited:
    """Edit the base model; a killed edit goes on from its last checkpoint to the same weights.

    Raises:
        EditError: The edit failed.
        DataError: The base checkpoint cannot be loaded.
    """
    config = platform.config
    base_digest = tree_digest(platform.base_checkpoint)
    folder = platform.workspace / "edits" / _work_name(platform, triplets, base_digest)
    with platform.tracker.start_run(
        experiment=f"safegen/{config.model}/edit",
        run_name=edit_label(config),
        tags={"stage": "edit", "triplets_digest": triplets.digest, "base_digest": base_digest},
        description=edit_description(config, triplets),
        resume_run_id=_unfinished_run(folder),
        system_metrics_interval_s=_SYSTEM_METRICS_INTERVAL_S,
    ) as run:
        _remember_run(folder, run.id)
        run.log_params({**config.edit.model_dump(), "seed": config.seed})
        run.log_dataset(triplets.dataset, triplets.digest, triplets.manifest_uri, "training")
        pipeline = platform.load(platform.base_checkpoint)
        records = read_triplets(platform.trainer_store, triplets.dataset, triplets.digest)
        started = time.monotonic()
        parts = _edit(platform, pipeline, records, folder, run)
        seconds = time.monotonic() - started
        checkpoint = _export(pipeline, platform.base_checkpoint, folder / "checkpoint", parts)
        delta = _delta(platform, pipeline, folder, run)
        digest = tree_digest(checkpoint)
        run.log_metrics({"edit/seconds": seconds})
        model_id = run.log_model_folder("candidate", checkpoint, {"checkpoint_digest": digest})
        (folder / "progress.pt").unlink(missing_ok=True)
        (folder / "run-id").unlink(missing_ok=True)
        return Edited(
            checkpoint=checkpoint,
            checkpoint_digest=digest,
            delta=delta,
            base_digest=base_digest,
            triplets=triplets,
            run_id=run.id,
            model_id=model_id,
            run_url=run.url,
            seconds=seconds,
        )


def finished_edit(platform: Platform, triplets: Triplets) -> Path | None:
    """Return the checkpoint that an earlier run of the edit stage made of the same inputs, or None."""
    name = _work_name(platform, triplets, tree_digest(platform.base_checkpoint))
    checkpoint = platform.workspace / "edits" / name / "checkpoint"
    return checkpoint if checkpoint.is_dir() else None


def encode_triplets(
    platform: Platform, pipeline: StableDiffusionPipeline, records: list[TripletRecord]
) -> TripletLatents:
    """Encode the pictures and prompts of triplets, once."""
    from safegen.defences.safegen import TripletLatents, encode_prompts, own_rows
    from safegen.diffusion.latents import encode

    def latents(digests: list[str]):  # noqa: ANN202  (a tensor; torch is imported late)
        return encode(pipeline.vae, [get_picture(platform.trainer_store, sha) for sha in digests])

    captions = [one.unsafe_caption for one in records]
    benign_captions = [one.benign_caption for one in records]
    size_px = (platform.config.triplets.size_px, platform.config.triplets.size_px)
    return TripletLatents(
        unsafe=latents([one.unsafe_sha for one in records]),
        censored=latents([one.censored_sha for one in records]),
        benign=latents([one.benign_sha for one in records]),
        prompts=encode_prompts(pipeline, captions, size_px=size_px),
        benign_prompts=encode_prompts(pipeline, benign_captions, size_px=size_px),
        own_prompt=own_rows(captions),
        own_benign_prompt=own_rows(benign_captions),
    )


def _open(
    platform: Platform, pipeline: StableDiffusionPipeline, records: list[TripletRecord]
) -> tuple[WeightEdit, AbstractContextManager[None]]:
    """Return the edit, and the context in which other processes help with it."""
    config = platform.config
    if config.edit.kind != "safegen":
        if processes() > 1:
            raise EditError(
                f"edit: {config.edit.kind!r} trains in one process, not in {processes()}; start it without accelerate"
            )
        parts = defence_parts(platform, lambda: encode_triplets(platform, pipeline, records))
        return open_edit(config.edit, parts), nullcontext()
    data = encode_triplets(platform, pipeline, records)
    job = EditJob(platform.base_checkpoint, config.hardware, config.edit, config.seed, data)
    return open_edit(config.edit, defence_parts(platform, lambda: data)), followed(job)


def _edit(
    platform: Platform,
    pipeline: StableDiffusionPipeline,
    records: list[TripletRecord],
    folder: Path,
    run: TrackedRun,
) -> Sequence[str]:
    """Edit in place, and return the names of the parts that changed."""
    from safegen.defences.edit_loop import EditObservers

    edit, helping = _open(platform, pipeline, records)
    steps = edit_steps(platform.config.edit)
    preview = PreviewSheet(platform, pipeline)
    run.log_image("preview", preview.draw(), step=0)
    with progress_bar("edit", "steps") as progress, helping:

        def on_step(step: int, values: Mapping[str, float]) -> None:
            run.log_metrics({f"edit/{name}": value for name, value in values.items()}, step)
            progress(step, steps)

        edit.edit(
            pipeline,
            progress_file=folder / "progress.pt",
            observers=EditObservers(on_step, lambda step, _: run.log_image("preview", preview.draw(), step)),
        )
    run.log_image("preview", preview.draw(), step=steps)
    return edit.parts


def _delta(
    platform: Platform, pipeline: StableDiffusionPipeline, folder: Path, run: TrackedRun
) -> Path | None:
    """Keep SafeGen's edit on its own; what other edits change does not fit that format."""
    if platform.config.edit.kind != "safegen":
        return None
    from safegen.diffusion.delta import save_delta

    delta = folder / "delta.safetensors"
    save_delta(pipeline.unet, delta)
    run.log_artifact(delta, "delta")
    return delta


def _export(pipeline: StableDiffusionPipeline, base: Path, folder: Path, parts: Sequence[str]) -> Path:
    """Write the candidate: the base's own files, and the edited parts in the base's floating-point type."""
    pending = folder.with_name("checkpoint.part")
    shutil.rmtree(pending, ignore_errors=True)
    # A base that was pulled holds its own release's documents, which say nothing of the candidate.
    shutil.copytree(base, pending, ignore=lambda folder, _: RELEASE_DOCUMENTS if Path(folder) == base else ())
    for part in parts:
        _export_part(getattr(pipeline, part), base / part, pending / part)
    shutil.rmtree(folder, ignore_errors=True)
    pending.rename(folder)
    return folder


def _export_part(
    network: Any, base: Path, folder: Path
) -> None:  # Any: models of diffusers and of transformers
    import torch
    from safetensors import safe_open

    [weights] = sorted(base.glob("*.safetensors"))[:1]
    with safe_open(weights, framework="pt") as file:
        dtype = file.get_tensor(next(iter(file.keys()))).dtype
    shutil.rmtree(folder)
    network.to(dtype, memory_format=torch.contiguous_format).save_pretrained(folder, safe_serialization=True)
    network.to(torch.float32)


def _work_name(platform: Platform, triplets: Triplets, base_digest: str) -> str:
    """Name the folder of this edit after all that it depends on."""
    config = platform.config
    return digest_json(
        {
            "edit": edit_inputs(config),
            "seed": config.seed,
            "triplets": triplets.digest,
            "base": base_digest,
            "processes": processes(),
        }
    )[:16]


def _unfinished_run(folder: Path) -> str | None:
    note = folder / "run-id"
    return note.read_text() if note.is_file() else None


def _remember_run(folder: Path, run_id: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run-id").write_text(run_id)
