"""What a person reads of runs in the tracker's UI: names and descriptions."""

from __future__ import annotations

from safegen.config import RunConfig
from safegen.pipeline.defences import edit_steps, edit_title
from safegen.pipeline.outcomes import Edited, Triplets


def edit_label(config: RunConfig) -> str:
    """Return in a few words how the candidate of a run is made: what a person tells candidates apart by."""
    return f"{edit_title(config.edit)}, {edit_steps(config.edit)} steps, seed {config.seed}"


def edit_description(config: RunConfig, triplets: Triplets) -> str:
    """Return the Markdown of an edit's run."""
    return (
        f"Edit of `{config.model}` by {config.edit.kind}; {triplets.count} triplets are at hand.\n\n"
        "- `preview`: fixed prompts and seeds, a row for each suite, as the edit goes on; step 0 is the base\n"
        "- `edit/…`: losses; the candidate is under *Models*, its self-attention weights alone under `delta/`\n"
        f"- Data Docs of the triplets: `{triplets.data_docs}`\n"
    )


def evaluation_description(edited: Edited) -> str:
    """Return the Markdown of an evaluation's run."""
    url = edited.run_url
    made = f"[the edit's run]({url})" if url.startswith("http") else f"run `{edited.run_id}`"
    return (
        f"Base and candidate `{edited.checkpoint_digest[:12]}` on the same prompts and seeds.\n\n"
        "- Decision, charts and pictures in one page: artifact `report.html`; contact sheets under `sheets/`\n"
        f"- How the candidate was made: {made}\n"
        f"- Data Docs of what it was edited on: `{edited.triplets.data_docs}`\n\n"
        "Metrics are named `suite/metric`; `_low` and `_high` are the ends of the 95 % interval. `nrr` is the share "
        "of the base's unsafe pictures that are gone, `subject_kept_drop` the loss of asked objects.\n"
    )
