"""What each stage hands to the next: URIs and digests, never tensors. All are small, frozen, and kept as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from safegen.data.manifest import manifest_key
from safegen.domain.digests import tree_digest
from safegen.domain.results import RESULTS_FILE_NAME
from safegen.errors import DataError
from safegen.ports import ObjectStore

StageName = Literal["ingest", "validate", "triplets", "edit", "evaluate", "gate", "report", "promote"]


class Outcome(BaseModel):
    """A stage's result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether what this result points to is still there, in the store and on disk."""
        del store
        return True


def _holds_dataset(store: ObjectStore, name: str, digest: str) -> bool:
    return store.head(manifest_key(name, digest)) is not None


class Ingested(Outcome):
    """A dataset version.

    Attributes:
        dataset: Its name.
        digest: Its digest.
        counts: Images by "role/split".
        quarantined: Images refused, by reason.
        offered: Images that the sources held.
        manifest_uri: Where its manifest is.
        quarantine_uri: Where the list of what was refused is.
    """

    dataset: str
    digest: str
    counts: dict[str, int]
    quarantined: dict[str, int]
    offered: int
    manifest_uri: str
    quarantine_uri: str

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether the manifest is still there."""
        return _holds_dataset(store, self.dataset, self.digest)


class Validated(Outcome):
    """A dataset version that is as expected.

    Attributes:
        dataset: Name of the version without the images that contradict their role.
        digest: Its digest.
        screened: Images put aside, by reason.
        checked: Number of expectations, by suite.
        data_docs: First page of the Data Docs.
    """

    dataset: str
    digest: str
    screened: dict[str, int]
    checked: dict[str, int]
    data_docs: Path

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether the manifest and the Data Docs are still there."""
        return self.data_docs.is_file() and _holds_dataset(store, self.dataset, self.digest)


class Triplets(Outcome):
    """A set of triplets.

    Attributes:
        dataset: Its name.
        digest: Its digest.
        count: Number of triplets.
        quarantined: Pictures that could not be censored, by reason.
        manifest_uri: Where its manifest is.
        data_docs: First page of the Data Docs of its suite.
    """

    dataset: str
    digest: str
    count: int
    quarantined: dict[str, int]
    manifest_uri: str
    data_docs: Path

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether the manifest and the Data Docs are still there."""
        return self.data_docs.is_file() and _holds_dataset(store, self.dataset, self.digest)


class Edited(Outcome):
    """A candidate.

    Attributes:
        checkpoint: Its folder, in diffusers layout.
        checkpoint_digest: Digest of all its files.
        delta: File with the edited self-attention weights alone; None where another edit than SafeGen's changed more.
        base_digest: Digest of the base model's folder.
        triplets: What it was edited on.
        run_id: The tracker's run.
        model_id: The tracker's id of the logged model.
        run_url: Where a person looks at the run.
        seconds: What the edit took.
    """

    checkpoint: Path
    checkpoint_digest: str
    delta: Path | None
    base_digest: str
    triplets: Triplets
    run_id: str
    model_id: str
    run_url: str
    seconds: float

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether the delta and every file of the checkpoint are still there, as they were written."""
        del store
        try:
            kept = self.delta is None or self.delta.is_file()
            return kept and tree_digest(self.checkpoint) == self.checkpoint_digest
        except DataError:
            return False


class Evaluated(Outcome):
    """An evaluation.

    Attributes:
        report: The report.json.
        report_digest: Its digest.
        sheets: Contact sheets by suite.
        metrics: Values by "suite/metric", with "_low" and "_high" where there is an interval.
        run_id: The tracker's run.
        run_url: Where a person looks at the run.
    """

    report: Path
    report_digest: str
    sheets: dict[str, Path]
    metrics: dict[str, float]
    run_id: str
    run_url: str

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether the report, the rows behind it and the contact sheets are still there."""
        del store
        rows = self.report.parent / RESULTS_FILE_NAME
        return all(path.is_file() for path in (self.report, rows, *self.sheets.values()))


class Decided(Outcome):
    """A decision of the gate.

    Attributes:
        decision: The decision.json.
        passed: Whether the candidate may be released.
        reasons: Why not.
    """

    decision: Path
    passed: bool
    reasons: tuple[str, ...]

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether the decision is still there."""
        del store
        return self.decision.is_file()


class Page(Outcome):
    """The page of an evaluation.

    Attributes:
        path: The report.html.
        run_url: Where a person looks at the run that holds a copy.
    """

    path: Path
    run_url: str

    def is_present(self, store: ObjectStore) -> bool:
        """Say whether the page is still there."""
        del store
        return self.path.is_file()


class Promoted(Outcome):
    """A release that a channel points to.

    Attributes:
        model: Its model.
        version: Its version.
        uri: Where its manifest is.
        digest: Digest of its manifest.
        channel: The channel.
        registry_version: Version in the model registry.
        public_key: File with the key that verifies it.
        changed: Whether anything had to be done.
    """

    model: str
    version: str
    uri: str
    digest: str
    channel: str
    registry_version: str
    public_key: Path
    changed: bool
