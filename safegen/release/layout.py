"""Object keys of releases, channels and audit entries, and how stored records are read back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TypeVar, cast

from pydantic import BaseModel, ValidationError

from safegen.domain.release import check_name
from safegen.errors import DataError, StorageError

RecordT = TypeVar("RecordT", bound=BaseModel)
_RELEASE_URI = re.compile(
    r"(?P<store>(?:s3|file)://.+?)/releases/(?P<model>[^/]+)/(?P<version>[^/]+)(?:/|/manifest\.json)?"
)


def release_key(model: str, version: str, name: str) -> str:
    """Return the key of one of a release's own objects: `manifest.json`, `decision.json`, `signature.json`.

    >>> release_key("sd", "2", "manifest.json")
    'releases/sd/2/manifest.json'
    """
    return f"releases/{check_name(model, 'model')}/{_check_version(version)}/{name}"


@dataclass(frozen=True)
class ReleaseAddress:
    """Where a release is.

    Attributes:
        store_uri: The object store that holds it.
        model: Name of the model.
        version: Its version.
    """

    store_uri: str
    model: str
    version: str


def parse_release_uri(uri: str) -> ReleaseAddress:
    """Return where a release is, by the URI of its folder or manifest.

    Raises:
        DataError: It is no URI of a release.

    >>> parse_release_uri("s3://bucket/releases/sd/2/manifest.json")
    ReleaseAddress(store_uri='s3://bucket', model='sd', version='2')
    """
    match = _RELEASE_URI.fullmatch(uri)
    if match is None:
        raise DataError(f"{uri!r} names no release; expected such as s3://BUCKET/releases/MODEL/VERSION")
    return ReleaseAddress(
        match["store"], check_name(match["model"], "model"), _check_version(match["version"])
    )


def channel_key(model: str, channel: str) -> str:
    """Return the key of a channel's pointer.

    >>> channel_key("sd", "production")
    'channels/sd/production.json'
    """
    return f"channels/{check_name(model, 'model')}/{check_name(channel, 'channel')}.json"


def parse_record(data: bytes, where: str, record: type[RecordT]) -> RecordT:
    """Return the record that stored bytes hold, checked against its format.

    Args:
        data: What is stored.
        where: Its address, for the message.
        record: The type expected.

    Raises:
        StorageError: What is stored does not have the format.
    """
    try:
        return record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "as a whole"
        raise StorageError(
            f"{where} is no valid {record.__name__} ({field}: {first['msg']}); do not use it, and find out "
            "who wrote it"
        ) from error


def json_object(data: bytes, what: str) -> dict[str, object]:
    """Return the JSON object in `data`.

    Raises:
        DataError: It is no JSON object.
    """
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not JSON: {error}; give the file that the gate wrote") from error
    if not isinstance(value, dict):
        raise DataError(
            f"{what} is a JSON {type(value).__name__}, expected an object; give the file that the gate wrote"
        )
    return cast("dict[str, object]", value)  # JSON keys are strings


def _check_version(version: str) -> str:
    if not (version.isascii() and version.isdigit() and not version.startswith("0") and len(version) < 10):
        raise DataError(f"refused version {version!r}: expected a positive whole number such as '3'")
    return version
