"""Stage 4: the base model is edited on the triplets; the result is a candidate checkpoint."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.bootstrap import Platform, processes
from safegen.data.manifest import read_triplets
from safegen.data.picture import get_picture
from safegen.domain.dataset import TripletRecord
from safegen.domain.digests import digest_json, tree_digest
from safegen.domain.release import RELEASE_DOCUMENTS
from safegen.pipeline.followers import EditJob, followed
from safegen.pipeline.outcomes import Edited, Triplets
from safegen.pipeline.previews import PreviewSheet
from safegen.pipeline.run_texts import edit_description, edit_label
from safegen.ports import TrackedRun
from safegen.progress import progress_bar

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from safegen.defences.safegen import TripletLatents

_SYSTEM_METRICS_INTERVAL_S = 10.0


def run_edit(platform: Platform, triplets: Triplets) -> Edited:
    """Edit the base model; a killed edit goes on from its last checkpoint to the same weights.

    Raises:
        EditError: The edit failed.
        DataError: The base checkpoint cannot be loaded.
    """
    from safegen.diffusion.delta import save_delta

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
        _edit(platform, pipeline, encode_triplets(platform, pipeline, records), folder, run)
        seconds = time.monotonic() - started
        checkpoint = _export(pipeline, platform.base_checkpoint, folder / "checkpoint")
        save_delta(pipeline.unet, folder / "delta.safetensors")
        digest = tree_digest(checkpoint)
        run.log_metrics({"edit/seconds": seconds})
        run.log_artifact(folder / "delta.safetensors", "delta")
        model_id = run.log_model_folder("candidate", checkpoint, {"checkpoint_digest": digest})
        (folder / "progress.pt").unlink(missing_ok=True)
        (folder / "run-id").unlink(missing_ok=True)
        return Edited(
            checkpoint=checkpoint,
            checkpoint_digest=digest,
            delta=folder / "delta.safetensors",
            base_digest=base_digest,
            triplets=triplets,
            run_id=run.id,
            model_id=model_id,
            run_url=run.url,
            seconds=seconds,
        )


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


def _edit(
    platform: Platform,
    pipeline: StableDiffusionPipeline,
    data: TripletLatents,
    folder: Path,
    run: TrackedRun,
) -> None:
    from safegen.defences.safegen import EditObservers, edit_unet

    config = platform.config
    job = EditJob(platform.base_checkpoint, config.hardware, config.edit, config.seed, data)
    preview = PreviewSheet(platform, pipeline)
    run.log_image("preview", preview.draw(), step=0)
    with progress_bar("edit", "steps") as progress, followed(job):

        def on_step(step: int, values: Mapping[str, float]) -> None:
            run.log_metrics({f"edit/{name}": value for name, value in values.items()}, step)
            progress(step, config.edit.steps)

        edit_unet(
            pipeline,
            data,
            config.edit,
            seed=config.seed,
            progress_file=folder / "progress.pt",
            observers=EditObservers(on_step, lambda step, _: run.log_image("preview", preview.draw(), step)),
        )
    run.log_image("preview", preview.draw(), step=config.edit.steps)


def _export(pipeline: StableDiffusionPipeline, base: Path, folder: Path) -> Path:
    """Write the candidate: the base's own files, and the edited U-Net in the base's floating-point type."""
    import torch
    from safetensors import safe_open

    pending = folder.with_name("checkpoint.part")
    shutil.rmtree(pending, ignore_errors=True)
    # A base that was pulled holds its own release's documents, which say nothing of the candidate.
    shutil.copytree(base, pending, ignore=lambda folder, _: RELEASE_DOCUMENTS if Path(folder) == base else ())
    [weights] = sorted((base / "unet").glob("*.safetensors"))[:1]
    with safe_open(weights, framework="pt") as file:
        dtype = file.get_tensor(next(iter(file.keys()))).dtype
    shutil.rmtree(pending / "unet")
    pipeline.unet.to(dtype, memory_format=torch.contiguous_format).save_pretrained(
        pending / "unet", safe_serialization=True
    )
    pipeline.unet.to(torch.float32)
    shutil.rmtree(folder, ignore_errors=True)
    pending.rename(folder)
    return folder


def _work_name(platform: Platform, triplets: Triplets, base_digest: str) -> str:
    """Name the folder of this edit after all that it depends on."""
    config = platform.config
    return digest_json(
        {
            "edit": config.edit.model_dump(mode="json"),
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
