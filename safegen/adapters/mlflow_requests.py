"""Which HTTP requests a guarded MLflow server lets through to its handlers.

The registry's own changes are judged in the store (`mlflow_guarded_store`). Here is refused what does not end there: a
way to change the registry that this version of safegen does not know, a body that cannot be read, and every write to
the files or the state of a finished logged model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import unquote_plus

from safegen.adapters.promotion_proof import MODEL_ID, LoggedModels, RefusedMoveError

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REGISTRY = re.compile(
    r"registered-?_?models?|model-?_?versions?|alias|logged-?_?models?|transition-stage", re.IGNORECASE
)
_KNOWN = re.compile(r"(?:/[^?#]*)?/(?:ajax-)?api/2\.0/mlflow/((?:registered-models|model-versions)/[a-z-]+)")
_LOGGED_MODEL = re.compile(
    r"(?:/[^?#]*)?/(?:ajax-)?api/2\.0/mlflow/logged-models(?:/(?P<model>[^/]+)(?P<rest>/.+)?)?"
)
_OTHER_ALIASES = re.compile(r"(?:/[^?#]*)?/(?:ajax-)?api/3\.0/mlflow/mcp-servers(?:/.*)?")
_GRAPHQL = re.compile(r"(?:/[^?#]*)?/graphql/?")
_JUDGED_BY_THE_STORE = frozenset(
    {
        ("POST", "registered-models/create"),
        ("PATCH", "registered-models/update"),
        ("POST", "registered-models/rename"),
        ("DELETE", "registered-models/delete"),
        ("POST", "registered-models/get-latest-versions"),
        ("POST", "registered-models/set-tag"),
        ("DELETE", "registered-models/delete-tag"),
        ("POST", "registered-models/alias"),
        ("DELETE", "registered-models/alias"),
        ("POST", "model-versions/create"),
        ("PATCH", "model-versions/update"),
        ("POST", "model-versions/transition-stage"),
        ("DELETE", "model-versions/delete"),
        ("POST", "model-versions/set-tag"),
        ("DELETE", "model-versions/delete-tag"),
    }
)
_HARMLESS_MUTATIONS = frozenset({"mlflowSearchRuns", "mlflowSearchDatasets", "testMutation"})
_ARTIFACTS = re.compile(
    r"(?:/[^?#]*)?/(?:ajax-)?api/2\.0/(?:mlflow-artifacts/.+|mlflow/(?:artifacts/.+|upload-artifact))",
    re.DOTALL,
)
_MOST_DECODING = 8


@dataclass(frozen=True)
class Request:
    """What is judged of an HTTP request.

    Attributes:
        method: In capitals.
        path: As the server routes it.
        query: The query string.
        body: The whole body; empty where the path and query are enough, see `needs_body`.
    """

    method: str
    path: str
    query: str = ""
    body: bytes = b""

    @property
    def decoded_path(self) -> str:
        """The path without percent-encoding, however often it was applied."""
        path = self.path
        for _ in range(_MOST_DECODING):
            if (decoded := unquote_plus(path)) == path:
                return path
            path = decoded
        raise RefusedMoveError("the path is encoded too often; write it plainly")


def needs_body(request: Request) -> bool:
    """Tell whether a request is judged by its body, too; uploads of files are not."""
    path = request.decoded_path
    if _GRAPHQL.fullmatch(path):
        return True
    if request.method in _READS:
        return False
    if _ARTIFACTS.fullmatch(path):
        return path.endswith("/presigned-upload-url")
    return bool(_REGISTRY.search(path))


@final
class RequestJudge:
    """Refuses requests; see the module."""

    def __init__(self, models: LoggedModels, guarded_users: Callable[[str], list[str]]) -> None:
        """Keep what is asked.

        Args:
            models: The server's logged models.
            guarded_users: Returns the promoted versions made of a logged model.
        """
        self._models = models
        self._guarded_users = guarded_users

    def check(self, request: Request) -> None:
        """Return if a request may go to its handler.

        Raises:
            RefusedMoveError: It may not; says why.
        """
        path = request.decoded_path
        if _GRAPHQL.fullmatch(path):
            _check_graphql(request.body)
        if request.method in _READS or _OTHER_ALIASES.fullmatch(path):
            return
        logged = _LOGGED_MODEL.fullmatch(path)
        if logged is not None:
            self._check_logged_model(request, logged["model"], logged["rest"])
        elif _ARTIFACTS.fullmatch(path):
            self._check_write(request)
        elif _REGISTRY.search(path):
            _check_registry(request, path)

    def _check_logged_model(self, request: Request, model_id: str | None, rest: str | None) -> None:
        if model_id is None or rest is not None or request.method == "POST":
            _read_object(request.body)  # made, searched, tagged: nothing that a promotion rests on
        elif request.method == "DELETE":
            if users := self._guarded_users(model_id):
                raise RefusedMoveError(
                    f"logged model {model_id} is {', '.join(users)}, which is promoted; point that name elsewhere first"
                )
        elif request.method == "PATCH":
            status = _read_object(request.body).get("status")
            if status != "LOGGED_MODEL_READY" and self._models.read(model_id).is_ready:
                raise RefusedMoveError(f"logged model {model_id} is finished and stays so; log another one")
        else:
            raise RefusedMoveError(f"{request.method} of a logged model is not known to safegen")

    def _check_write(self, request: Request) -> None:
        """Refuse to write where the files of a finished logged model are."""
        text = " ".join(
            (request.decoded_path, unquote_plus(request.query), request.body.decode(errors="replace"))
        )
        # Lower case, because some file systems do not tell the cases apart
        for model_id in sorted(set(MODEL_ID.findall(text.lower()))):
            try:
                is_ready = self._models.read(model_id).is_ready
            except RefusedMoveError:
                continue  # not a model of this server: nothing can be promoted from it
            if is_ready:
                raise RefusedMoveError(f"logged model {model_id} is finished, and its files stay as they are")


def _check_registry(request: Request, path: str) -> None:
    known = _KNOWN.fullmatch(path)
    if known is None or (request.method, known[1]) not in _JUDGED_BY_THE_STORE:
        raise RefusedMoveError(
            f"{request.method} {path[:200]} is no way to change the registry that safegen knows; use one that it does"
        )
    _read_object(request.body)


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body or b"{}")
        if isinstance(content, str):  # MLflow still takes what old clients encoded twice
            content = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedMoveError(f"the request's body cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise RefusedMoveError(f"the request's body is a {type(content).__name__}; expected a JSON object")
    return content


def _check_graphql(body: bytes) -> None:
    from graphql import GraphQLError, parse
    from graphql.language import FieldNode, OperationDefinitionNode, OperationType

    query = _read_object(body).get("query")
    try:
        document = parse(str(query))
    except GraphQLError as error:
        raise RefusedMoveError(f"the GraphQL query cannot be read ({error.message})") from error
    for part in document.definitions:
        if not isinstance(part, OperationDefinitionNode) or part.operation == OperationType.QUERY:
            continue
        for field in part.selection_set.selections:
            if not isinstance(field, FieldNode) or field.name.value not in _HARMLESS_MUTATIONS:
                raise RefusedMoveError("the GraphQL mutation is none that safegen knows")
