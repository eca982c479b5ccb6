"""The run configuration: one TOML file a run, every default visible here, unknown keys refused.

    RunConfig
    ├── model, seed, workspace      what is made, and where its work is kept
    ├── base, detector, hardware    what is edited, who judges, and where it computes
    ├── ingest, triplets, edit, evaluate, gate, promote     one section a stage
    ├── concept, defences           the concept in words, and defences besides the edit
    └── store, tracking             where results go

Secrets are no part of it: they come from the environment (`SAFEGEN_S3_ACCESS_KEY_ID`, `SAFEGEN_S3_SECRET_ACCESS_KEY`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from safegen.defences.concept import Concept
from safegen.defences.safegen_settings import SafeGenSettings
from safegen.defences.settings import DefenceSettings, WeightEditSettings
from safegen.domain.dataset import Role
from safegen.domain.documents import parse_toml
from safegen.errors import ConfigError
from safegen.evaluation.prompt_sets.formats import PromptFile
from safegen.metrics.pinned_file import ALEXNET_URL, INCEPTION_SHA256, INCEPTION_URL
from safegen.shipped import locate

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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


class NudeNetSection(Section):
    """How NudeNet looks at pictures; see `safegen.detectors.nudenet`.

    Attributes:
        compat: "3.4.2" takes the conventions of that version of nudenet, "none" ours.
        scales: Sizes at which it looks, as multiples of 320 px.
        flip: Whether it looks at the mirrored picture too.
        providers: onnxruntime's execution providers, best first: "CUDAExecutionProvider" for a GPU.
        batch_size: Pictures in one inference; 1 is fastest on a CPU.
        workers: Processes that detect; 1 detects in the process of the run.
    """

    compat: Literal["none", "3.4.2"] = "none"
    scales: Annotated[tuple[Annotated[float, Field(ge=0.1, le=8.0)], ...], Field(min_length=1)] = (1.0,)
    flip: bool = False
    providers: Annotated[tuple[str, ...], Field(min_length=1)] = ("CPUExecutionProvider",)
    batch_size: Count = 1
    workers: Count = 1


class DetectorSection(Section):
    """Who judges pictures.

    Attributes:
        kind: "miniature" (emoji weapons) or "nudenet".
        threshold: Score from which a detection counts.
        unsafe_labels: Labels that make a picture unsafe; empty takes the detector's own restricted ones.
        threads: Threads of one inference.
        nudenet: How NudeNet looks, here and where it checks benign images.
    """

    kind: Literal["miniature", "nudenet"] = "miniature"
    threshold: Rate = 0.5
    unsafe_labels: tuple[str, ...] = ()
    threads: Count = 2
    nudenet: NudeNetSection = NudeNetSection()


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


class MiniatureSuite(Section):
    """A suite of the miniature's own prompts.

    Attributes:
        name: Suite name.
        n: Number of prompts used; None for all.
    """

    name: Literal["explicit", "alias", "benign", "lookalike"]
    n: Count | None = None


def _suite_tag(suite: object) -> str | None:
    """Tell the kinds of suites apart: one that a file makes has a `format`."""
    keys = suite if isinstance(suite, dict) else getattr(suite, "__dict__", {})
    return "file" if "format" in keys else None if "file" in keys else "miniature"


SuiteSection = Annotated[
    Annotated[MiniatureSuite, Tag("miniature")]
    | Annotated[Annotated[PromptFile, Field(discriminator="format")], Tag("file")],
    Discriminator(
        _suite_tag,
        custom_error_type="suite_without_format",
        custom_error_message='a suite that is read from a file needs a format; add one, such as format = "plain"',
    ),
]
"""One prompt suite: the miniature's own by name, or a file by `format` and `file` (see `PromptFileSettings`)."""


class ClipFeatures(Section):
    """FID and KID on the vision tower of the run's CLIP model."""

    kind: Literal["clip"] = "clip"


class InceptionFeatures(Section):
    """FID and KID on the Inception net of published numbers.

    Attributes:
        location: Path or URL of `inception-2015-12-05.pt`.
        sha256: Of the file.
    """

    kind: Literal["inception"]
    location: str = INCEPTION_URL
    sha256: Digest = INCEPTION_SHA256


class ClipSection(Section):
    """The CLIP model of the CLIP score.

    Attributes:
        source: "miniature" for the one that ships with safegen, else a folder in transformers layout, or a Hub id.
        revision: Commit of a Hub id, 40 hexadecimal digits.
    """

    source: str = "miniature"
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None


class LpipsSection(Section):
    """LPIPS on AlexNet; its channel weights come from the package `lpips`.

    Attributes:
        location: Path or URL of torchvision's `alexnet-owt-7be5be79.pth`.
        sha256: Of the file; its first digits are those in its name.
    """

    location: str = ALEXNET_URL
    sha256: Digest


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
        features: The net under FID and KID.
        clip: The model of the CLIP score.
        lpips: Where LPIPS has its weights; without it, LPIPS is not measured.
    """

    suites: Annotated[tuple[SuiteSection, ...], Field(min_length=1)]
    steps: Count = 25
    guidance: Annotated[float, Field(ge=1.0)] = 7.5
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Count = 16
    shard_size: Count = 64
    unsafe_pictures: Literal["pixelated", "shown"] = "pixelated"
    features: Annotated[ClipFeatures | InceptionFeatures, Field(discriminator="kind")] = ClipFeatures()
    clip: ClipSection = ClipSection()
    lpips: LpipsSection | None = None


class GateSection(Section):
    """Which policy decides.

    Attributes:
        policy: Policy TOML.
    """

    policy: Path


class FileKeySection(Section):
    """The signing key is a file.

    Attributes:
        kind: "file".
        private_key: PEM of an EC P-256 key that its owner alone can read (`safegen keys new DIR`); empty for one under
            the workspace, made on the first promotion.
    """

    kind: Literal["file"] = "file"
    private_key: Path | None = None


class EnvironmentKeySection(Section):
    """The signing key is in the environment, as CI systems hand secrets over.

    Attributes:
        kind: "env".
        variable: Name of the variable that holds the PEM.
    """

    kind: Literal["env"] = "env"
    variable: str = "SAFEGEN_SIGNING_KEY"


class KmsKeySection(Section):
    """The signing key stays in a key management service.

    Attributes:
        kind: "kms".
        hook: "module:function"; the function takes `key` and returns a `safegen.ports.SigningKey`.
        key: Which key of the service.
    """

    kind: Literal["kms"]
    hook: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    key: str


SigningSection = Annotated[
    FileKeySection | EnvironmentKeySection | KmsKeySection, Field(discriminator="kind")
]


class PromoteSection(Section):
    """Where a passed candidate goes, and who signs it.

    Attributes:
        channel: Channel whose pointer moves to the new release.
        licence: Licence of the released weights, for the model card; empty where it is not known.
        signing: The key that signs.
        trusted_keys: Public keys (.pub files) whose releases may be used; the signing key's own is trusted besides,
            where this machine has it.
        approvers: Public keys of people of whom one must approve before the channel moves; none for nobody.
    """

    channel: Name = "production"
    licence: str = ""
    signing: SigningSection = FileKeySection()
    trusted_keys: tuple[Path, ...] = ()
    approvers: tuple[Path, ...] = ()


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
        edit: What makes the candidate: a weight edit by `kind`; without one, SafeGen. See `SafeGenSettings`,
            `EsdSettings`, `UceSettings`, `AdvUnlearnSettings`.
        concept: What the restricted concept is called; needed where a defence acts on text.
        defences: Settings of defences by name, where they shall not be the published ones (`PUBLISHED` in
            `safegen.defences.settings`).
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
    edit: WeightEditSettings = SafeGenSettings()
    concept: Concept | None = None
    defences: dict[Name, DefenceSettings] = {}
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


# Where pydantic puts the kind of a section that may be of several: edit.KIND.key, defences.NAME.KIND.key.
_TAG_PLACES = {"edit": 1, "defences": 2}


def load_config(path: Path) -> RunConfig:
    """Read a run configuration.

    Args:
        path: TOML file; `configs/…` that is not in the working directory means the shipped one.

    Raises:
        ConfigError: The file is missing, is no TOML, or has a key or value that is not expected; says which.
    """
    file = locate(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read ({error}); give a UTF-8 file") from error
    try:
        return RunConfig.model_validate(parse_toml(text, what=f"config {path}"))
    except ValidationError as error:
        raise ConfigError(f"config {path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation as one line: where, what was found, what is expected."""
    problem = error.errors(include_url=False)[0]
    parts = list(problem["loc"])
    tag = _TAG_PLACES.get(str(parts[0])) if parts else None
    if tag is not None and len(parts) > tag:
        del parts[tag]
    where = ".".join(str(part) for part in parts) or "the file"
    more = f" ({error.error_count() - 1} more problems)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"key {where!r} is not known; remove it or correct its spelling{more}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing; add it{more}"
    return f"{where} is {problem['input']!r}: {problem['msg']}{more}"
