"""Every error that safegen raises on purpose, and the exit code a command ends with.

    SafegenError                     3   never raised itself; catch it to catch all of the below
    ├── ConfigError                  2   a configuration, policy or argument is wrong
    ├── DataError                    2   an image, manifest, prompt set or checkpoint is wrong
    ├── EditError                    2   an edit cannot be done as asked
    ├── EvaluationError              3   an evaluation could not be completed
    ├── StorageError                 3   the object store failed
    │   ├── ObjectNotFoundError      3   there is no object under this key
    │   ├── DamagedObjectError       3   content does not have the digest it is stored under
    │   ├── PreconditionFailedError  3   a conditional write lost to another writer
    │   └── ReleaseRefusedError      1   a release is unsigned, altered, or not one that passed
    └── RegistryError                3   the model registry or tracking server failed

Exit code 2 means that the caller can mend it, 3 that something underneath failed. A blocked gate is a value
(a decision with outcome "blocked"), not an error. A message says in one line what failed, the value, what was
expected, and the next step.
"""

from __future__ import annotations


class SafegenError(Exception):
    """The root of all errors raised on purpose.

    Attributes:
        exit_code: What a command that ends with this error exits with.
    """

    exit_code: int = 3


class ConfigError(SafegenError):
    """A configuration file, a policy or an argument is wrong."""

    exit_code = 2


class DataError(SafegenError):
    """An input (image, manifest, prompt set, checkpoint folder) is missing or wrong."""

    exit_code = 2


class EditError(SafegenError):
    """An edit cannot be done as asked."""

    exit_code = 2


class EvaluationError(SafegenError):
    """An evaluation could not be completed."""

    exit_code = 3


class StorageError(SafegenError):
    """The object store failed or refused."""

    exit_code = 3


class ObjectNotFoundError(StorageError):
    """There is no object under the key asked for."""


class PreconditionFailedError(StorageError):
    """A conditional write was refused, because the object exists or has changed."""


class DamagedObjectError(StorageError):
    """A content-addressed object holds other content than its digest says."""


class ReleaseRefusedError(StorageError):
    """A release cannot be proven: no trusted signature, another content than signed, or no pass."""

    exit_code = 1


class RegistryError(SafegenError):
    """The model registry or the tracking server failed or refused."""

    exit_code = 3
