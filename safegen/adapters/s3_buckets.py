"""Create buckets; only the local stack does that, with an identity of its own."""

from __future__ import annotations

from typing import Any

from safegen.adapters.s3_store import translated
from safegen.errors import ObjectNotFoundError


def ensure_bucket(client: Any, bucket: str) -> None:
    """Create a bucket unless it exists.

    Args:
        client: A client from `s3_client`, of an identity that may create buckets.
        bucket: Its name.

    Raises:
        StorageError: The server cannot be reached, or refuses.
    """
    try:
        with translated("look for bucket", f"s3://{bucket}"):
            client.head_bucket(Bucket=bucket)
    except ObjectNotFoundError:
        with translated("create bucket", f"s3://{bucket}"):
            client.create_bucket(Bucket=bucket)
