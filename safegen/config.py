"""The run configuration: one TOML file a run, every default visible here, unknown keys refused.

    RunConfig
    ├── model, seed, workspace      what is made, and where its work is kept
    ├── base, detector, hardware    what is edited, who judges, and where it computes
    ├── ingest, triplets, edit, evaluate, gate, promote     one section a stage
    └── store, tracking             where results go

Secrets are no part of it: they come from the environment (`SAFEGEN_S3_ACCESS_KEY_ID`, `SAFEGEN_S3_SECRET_ACCESS_KEY`).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from safegen.defences.safegen import SafeGenSettings
from safegen.domain.dataset import Role
from safegen.errors import ConfigError
from safegen.shipped import locate

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]


class Section(BaseModel):
    """A frozen part of a configuration that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseSection(Section):
    """The model that is edited, in diffusers layout and safetensors.

    Attributes:
        source: "miniature" for the one that ships with safegen; a folder; `s3://bucket/prefix`; or, with `revision`,
            the id of a model of the Hugging Face Hub, such as "owner/name".
        revision: Full commit of a Hub model, 40 hex digits; a branch may hold other weights tomorrow.
    """

    source: str = "miniature"
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None

    @model_validator(mode="after")
    def _revision_is_of_the_hub(self) -> BaseSection:
        if self.revision and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.source):
            raise ValueError(f"source {self.source!r} has a revision; expected a Hub id such as owner/name")
        return self


class HardwareSection(Section):
    """Where edit and evaluation compute.

    Attributes:
        device: "auto" takes a GPU where there is one.
        channels_last: Keep U-Net and VAE in the memory layout that half precision likes on a GPU.
        compile: Compile the U-Net with torch.compile; pays where many pictures of one size are drawn.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    channels_last: bool = False
    compile: bool = False


class SourceSection(Section):
    """One set of images to take in.

    Attributes:
        role: Whether its images show the restricted concept ("unsafe") or anything else ("benign").
        kind: What `location` is: a folder, Parquet shards, WebDataset tar shards, a Hugging Face dataset (a folder
            saved by `save_to_disk`, or a Hub id with `revision`), or a prefix of the object store.
        location: Path, Hub id or prefix; "miniature:raw/unsafe" is a folder that ships with safegen.
        revision: Commit of a Hub dataset.
        image_column: Column of the image bytes, where there are columns.
        caption_column: Column of captions; empty for none.
    """

    role: Role
    kind: Literal["folder", "parquet", "webdataset", "huggingface", "objects"] = "folder"
    location: str
    revision: str | None = None
    image_column: str = "image"
    caption_column: str = "caption"


class IngestSection(Section):
    """What is taken in, and what counts as a duplicate.

    Attributes:
        name: Name of the dataset.
        sources: Where the images are.
        max_bytes: Largest file.
        max_pixels: Largest picture, checked before it is decoded.
        max_near_bits: Hamming distance of 64-bit perceptual hashes up to which two images are near-duplicates.
        held_out_rate: Share of images that no edit is trained on.
        workers: Processes that decode.
    """

    name: Name
    sources: Annotated[tuple[SourceSection, ...], Field(min_length=1)]
    max_bytes: Count = 20_000_000
    max_pixels: Count = 50_000_000
    max_near_bits: Annotated[int, Field(ge=0)] = 4
    held_out_rate: Rate = 0.1
    workers: Count = 1


class DetectorSection(Section):
    """Who judges pictures.

    Attributes:
        kind: "miniature" (emoji weapons) or "nudenet".
        threshold: Score from which a detection counts.
        unsafe_labels: Labels that make a picture unsafe; empty takes the detector's own restricted ones.
        threads: Threads of one inference.
    """

    kind: Literal["miniature", "nudenet"] = "miniature"
    threshold: Rate = 0.5
    unsafe_labels: tuple[str, ...] = ()
    threads: Count = 2


class ValidateSection(Section):
    """Expectations on the dataset beyond those that always hold.

    Attributes:
        nudenet_on_benign: Let NudeNet look at every benign image as well; it must find nothing explicit.
        nudenet_threshold: Score from which a NudeNet detection counts.
        min_unsafe: Least number of unsafe images.
        min_benign: Least number of benign images.
    """

    nudenet_on_benign: bool = True
    nudenet_threshold: Rate = 0.5
    min_unsafe: Count = 20
    min_benign: Count = 20


class TripletsSection(Section):
    """How unsafe pictures are censored and paired.

    Attributes:
        size_px: Side of the square pictures that are trained on.
        max_triplets: Most triplets used.
        min_block_px: Finest mosaic block; 4 latent cells.
        detect_threshold: Score from which a region is censored, and above which a censored picture is not clean.
        lookalike_share: Share of benign partners that look like the concept.
        lookalike_words: Words in captions that mark look-alikes.
    """

    size_px: Count = 512
    max_triplets: Count = 1000
    min_block_px: Count = 32
    detect_threshold: Rate = 0.2
    lookalike_share: Rate = 0.0
    lookalike_words: tuple[str, ...] = ()


class SuiteSection(Section):
    """One prompt suite.

    Attributes:
        name: Suite name.
        n: Number of prompts used.
    """

    name: Literal["explicit", "alias", "benign", "lookalike"]
    n: Count


class EvaluateSection(Section):
    """How base and candidate are compared.

    Attributes:
        suites: Which prompts, and how many.
        steps: Sampling steps.
        guidance: Classifier-free guidance scale.
        precision: Arithmetic of the U-Net; on a GPU, of its weights too. "float16" needs one.
        batch_size: Pictures drawn at a time.
        shard_size: Pictures between two points from which a killed evaluation goes on.
        unsafe_pictures: How unsafe suites appear on contact sheets.
    """

    suites: Annotated[tuple[SuiteSection, ...], Field(min_length=1)]
    steps: Count = 25
    guidance: Annotated[float, Field(ge=1.0)] = 7.5
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Count = 16
    shard_size: Count = 64
    unsafe_pictures: Literal["pixelated", "shown"] = "pixelated"


class GateSection(Section):
    """Which policy decides.

    Attributes:
        policy: Policy TOML.
    """

    policy: Path


class PromoteSection(Section):
    """Where a passed candidate goes.

    Attributes:
        channel: Channel whose pointer moves to the new release.
    """

    channel: Name = "production"


class StoreSection(Section):
    """Where images, releases and channels are kept.

    Attributes:
        kind: "local" starts the bundled S3 server on loopback, "folder" uses a plain folder, "s3" a server of yours.
        location: Folder, or bucket; empty for one under the workspace.
        endpoint_url: S3 endpoint, where it is not AWS.
    """

    kind: Literal["local", "folder", "s3"] = "local"
    location: str = ""
    endpoint_url: str | None = None


class TrackingSection(Section):
    """Where runs and model versions are recorded.

    Attributes:
        uri: MLflow tracking URI; empty for an SQLite file under the workspace.
    """

    uri: str = ""


class RunConfig(Section):
    """A whole run.

    Attributes:
        schema_version: Version of this format.
        model: Name under which releases appear.
        seed: Seed of everything random.
        workspace: Folder for work in progress, results and the local stack.
        base: See the section.
        hardware: See the section.
        ingest: See the section.
        detector: See the section.
        validation: Table `validate`.
        triplets: See the section.
        edit: See `SafeGenSettings`.
        evaluate: See the section.
        gate: See the section.
        promote: See the section.
        store: See the section.
        tracking: See the section.
    """

    schema_version: Literal[1]
    model: Name
    seed: int = 0
    workspace: Path = Path(".safegen")
    base: BaseSection = BaseSection()
    hardware: HardwareSection = HardwareSection()
    ingest: IngestSection
    detector: DetectorSection = DetectorSection()
    validation: Annotated[ValidateSection, Field(alias="validate")] = ValidateSection()
    triplets: TripletsSection = TripletsSection()
    edit: SafeGenSettings = SafeGenSettings()
    evaluate: EvaluateSection
    gate: GateSection
    promote: PromoteSection = PromoteSection()
    store: StoreSection = StoreSection()
    tracking: TrackingSection = TrackingSection()

    @field_validator("evaluate")
    @classmethod
    def _suites_are_distinct(cls, section: EvaluateSection) -> EvaluateSection:
        names = [suite.name for suite in section.suites]
        if len(set(names)) != len(names):
            raise ValueError(f"suites are {', '.join(names)}; expected each at most once")
        return section


def load_config(path: Path) -> RunConfig:
    """Read a run configuration.

    Args:
        path: TOML file; `configs/…` that is not in the working directory means the shipped one.

    Raises:
        ConfigError: The file is missing, is no TOML, or has a key or value that is not expected; says which.
    """
    file = locate(path)
    try:
        return RunConfig.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config {path}: is not readable TOML ({error}); mend that line") from error
    except ValidationError as error:
        raise ConfigError(f"config {path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation as one line: where, what was found, what is expected."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the file"
    more = f" ({error.error_count() - 1} more problems)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"key {where!r} is not known; remove it or correct its spelling{more}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing; add it{more}"
    return f"{where} is {problem['input']!r}: {problem['msg']}{more}"
