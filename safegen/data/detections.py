"""Raw detections of a detector on a dataset's pictures, kept so that thresholds can be swept later."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.data.ingest import Progress
from safegen.data.journal import Journal
from safegen.data.picture import get_picture
from safegen.domain.dataset import ImageRecord, QuarantineRecord, Reason
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.domain.digests import digest_json, sha256_bytes
from safegen.errors import DataError, EvaluationError
from safegen.ports import Detector, ObjectStore

_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("label", pa.list_(pa.string()), nullable=False),
        pa.field("score", pa.list_(pa.float64()), nullable=False),
        pa.field("box", pa.list_(pa.list_(pa.float64())), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ScoredImages:
    """What one detector found in some pictures.

    Attributes:
        detector: Which detector.
        by_sha256: Its raw detections in each picture; a picture that is missing here was not scored.
        uri: The Parquet file that holds them (columns sha256, label, score, box).
    """

    detector: DetectorIdentity
    by_sha256: Mapping[str, tuple[Detection, ...]]
    uri: str

    def concept_score(self, sha256: str, labels: Collection[str]) -> float:
        """Return the highest score of any of `labels` in a picture; 0 if the detector found none of them.

        Raises:
            DataError: The picture was not scored, or a score is not a number.
        """
        found = self.by_sha256.get(sha256)
        if found is None:
            raise DataError(
                f"picture {sha256} was not scored by {self.detector.name}; score the images first"
            )
        scores = [one.score for one in found if one.label in labels]
        if not all(map(math.isfinite, scores)):  # max() would hide a NaN
            raise DataError(
                f"{self.detector.name} gave picture {sha256} a score that is no number; score it again"
            )
        return max(scores, default=0.0)


def score_images(
    pictures: Iterable[str],
    store: ObjectStore,
    detector: Detector,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> ScoredImages:
    """Let a detector look at pictures, unless it has done so before.

    Args:
        pictures: Digests of stored pictures.
        store: Where they are, and where the detections go.
        detector: Its identity is part of the cache's key.
        batch_size: Pictures at a time.
        progress: Told of every batch.

    Returns:
        The detections of all `pictures`.

    Raises:
        EvaluationError: The detector did not answer for every picture.
        StorageError: The store failed.
    """
    wanted = sorted(set(pictures))
    identity = digest_json(asdict(detector.identity))
    journal = Journal(store, f"runs/detections/{identity}/journal/")
    missing = [sha256 for sha256 in wanted if journal.get(sha256) is None]
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        found = detector.detect([get_picture(store, sha256) for sha256 in batch])
        if len(found) != len(batch):
            raise EvaluationError(
                f"{detector.identity.name} answered for {len(found)} of {len(batch)} pictures"
            )
        for sha256, detections in zip(batch, found, strict=True):
            if not all(math.isfinite(one.score) for one in detections):
                raise EvaluationError(
                    f"{detector.identity.name} gave picture {sha256} a score that is no number"
                )
            journal.put(sha256, json.dumps([(one.label, one.score, one.box) for one in detections]))
        if progress is not None:
            progress(min(start + batch_size, len(missing)), len(missing))
    journal.flush()
    scored = {sha256: _detections(journal.get(sha256)) for sha256 in wanted}
    return ScoredImages(detector.identity, scored, _publish(store, identity, scored))


def screen_images(
    records: Sequence[ImageRecord],
    scored: ScoredImages,
    *,
    labels: Collection[str],
    threshold: float,
    max_screened_rate: float = 0.1,
) -> tuple[list[ImageRecord], list[QuarantineRecord]]:
    """Put aside images that contradict their role: unsafe ones without the concept, benign ones with it.

    Args:
        records: The dataset.
        scored: Detections on all its pictures.
        labels: The concept's labels.
        threshold: The score from which a label counts, 0..1.
        max_screened_rate: If more of a role's images contradict it, the role or the detector is wrong, not they.

    Returns:
        What stays, and what goes into quarantine; write both with `write_images` for the screened version.

    Raises:
        DataError: Too many contradict their role, or one was not scored.
    """
    kept: list[ImageRecord] = []
    refused: list[QuarantineRecord] = []
    for record in records:
        score = scored.concept_score(record.sha256, labels)
        shown = score >= threshold
        if shown == (record.role == "unsafe"):
            kept.append(record)
            continue
        reason = Reason.CONCEPT_SHOWN if shown else Reason.CONCEPT_NOT_SHOWN
        detail = f"{scored.detector.name} scores {score:.3f}; threshold {threshold}"
        refused.append(QuarantineRecord(record.source, record.source_sha256, record.role, reason, detail))
    for role in ("unsafe", "benign"):
        offered = sum(record.role == role for record in records)
        screened = sum(record.role == role for record in refused)
        if screened > max_screened_rate * offered:
            raise DataError(
                f"{screened} of {offered} {role} images contradict their role by {scored.detector.name} at "
                f"{threshold}; at most {max_screened_rate:.0%} may: check the folders, labels and threshold"
            )
    return kept, refused


def read_detections(data: bytes) -> dict[str, tuple[Detection, ...]]:
    """Return the detections of a Parquet file that `score_images` wrote, by digest of the picture.

    Raises:
        DataError: It is no such file.
    """
    try:
        rows = pq.read_table(io.BytesIO(data), schema=_SCHEMA).to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"not a Parquet file of detections: {error}; score the images again") from error
    return {
        row["sha256"]: tuple(
            Detection(label, score, (box[0], box[1], box[2], box[3]))
            for label, score, box in zip(row["label"], row["score"], row["box"], strict=True)
        )
        for row in rows
    }


def _detections(text: str | None) -> tuple[Detection, ...]:
    assert text is not None  # noqa: S101  put above, or found before
    return tuple(Detection(label, score, (x, y, w, h)) for label, score, (x, y, w, h) in json.loads(text))


def _publish(store: ObjectStore, identity: str, scored: Mapping[str, tuple[Detection, ...]]) -> str:
    columns = [
        pa.array(scored.keys()),
        pa.array([[one.label for one in found] for found in scored.values()], _SCHEMA.field("label").type),
        pa.array([[one.score for one in found] for found in scored.values()], _SCHEMA.field("score").type),
        pa.array([[list(one.box) for one in found] for found in scored.values()], _SCHEMA.field("box").type),
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), buffer, compression="zstd")
    key = f"runs/detections/{identity}/{sha256_bytes(buffer.getvalue())}.parquet"
    store.put(key, buffer.getvalue())
    return f"{store.uri}/{key}"
