"""The MLflow server with promotion guarded: `mlflow server --app-name safegen`.

    SAFEGEN_GUARD_PUBLIC_KEYS      PEM files of those who may promote, separated as in PATH; without one, nobody may
    SAFEGEN_GUARD_ALIASES          guarded aliases, separated by commas; champion,production
    SAFEGEN_GUARD_STAGES           guarded stages, separated by commas; production,staging
    SAFEGEN_GUARD_ARTIFACT_ROOTS   URIs, separated by commas, under which logged models may lie besides this server's
                                   own mlflow-artifacts:/

`docs/registry.md` says what is refused, and what is beyond the reach of a server.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.adapters.decision_signature import DecisionVerifier
from safegen.adapters.guard_settings import ALIASES, ARTIFACT_ROOTS, PUBLIC_KEYS, STAGES
from safegen.adapters.mlflow_guarded_store import GuardedNames, GuardedRegistryStore
from safegen.adapters.mlflow_logged_files import ServedLoggedModels
from safegen.adapters.mlflow_requests import Request, RequestJudge, needs_body
from safegen.adapters.promotion_proof import PromotionProof, RefusedMoveError
from safegen.adapters.signing_keys import read_public_key
from safegen.errors import ConfigError

if TYPE_CHECKING:
    from flask import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DEFAULT_ALIASES, _DEFAULT_STAGES = "champion,production", "production,staging"


def create_app() -> Any:
    """Return the guarded application: for uvicorn MLflow's FastAPI one, for other servers its Flask one.

    Raises:
        ConfigError: The registry is not in a database, or MLflow runs in a way that cannot be guarded.
    """
    from mlflow.environment_variables import _MLFLOW_SGI_NAME
    from mlflow.server import app as flask_app

    models = ServedLoggedModels(_listed(ARTIFACT_ROOTS, ""))
    store = _install_store(models)
    judge = RequestJudge(models, store.guarded_users)
    flask_app.before_request(partial(_judge_flask_request, judge, store))
    if _MLFLOW_SGI_NAME.get() != "uvicorn":
        return flask_app
    from mlflow.server.fastapi_app import create_fastapi_app

    fastapi_app = create_fastapi_app(flask_app)
    fastapi_app.add_middleware(_GuardedAsgiApp, judge=judge)
    return fastapi_app


def _listed(name: str, default: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in os.environ.get(name, default).split(",") if part.strip())


def _install_store(models: ServedLoggedModels) -> GuardedRegistryStore:
    """Make MLflow's handlers use the guarded store, before any of them opens another."""
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
    from mlflow.server import handlers
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if MLFLOW_ENABLE_WORKSPACES.get():
        raise ConfigError("MLflow workspaces cannot be guarded; unset MLFLOW_ENABLE_WORKSPACES")
    names = GuardedNames(
        *(
            frozenset(one.casefold() for one in _listed(*setting))
            for setting in ((ALIASES, _DEFAULT_ALIASES), (STAGES, _DEFAULT_STAGES))
        )
    )
    proof = PromotionProof(_verifier(), models)

    def open_store(store_uri: str, **_: Any) -> GuardedRegistryStore:
        from mlflow.server.constants import READ_REPLICA_BACKEND_STORE_URI_ENV_VAR

        replica = os.environ.get(READ_REPLICA_BACKEND_STORE_URI_ENV_VAR)
        return GuardedRegistryStore(store_uri, replica, names=names, proof=proof)

    for scheme in DATABASE_ENGINES:
        handlers._model_registry_store_registry.register(scheme, open_store)  # noqa: SLF001  (no public way)
    store = handlers._get_model_registry_store()  # noqa: SLF001
    if not isinstance(store, GuardedRegistryStore):
        raise ConfigError(
            f"MLflow's registry is a {type(store).__name__}, which cannot be guarded; give --backend-store-uri a "
            "database"
        )
    return store


def _verifier() -> DecisionVerifier | str:
    """Return who is trusted, or why nobody is: the server then runs, and refuses every promotion."""
    paths = [path for path in os.environ.get(PUBLIC_KEYS, "").split(os.pathsep) if path]
    if not paths:
        return f"the server has no public key; start it with {PUBLIC_KEYS}"
    try:
        return DecisionVerifier([read_public_key(Path(path)) for path in paths])
    except ConfigError as error:
        return str(error)


def _judge_flask_request(judge: RequestJudge, store: GuardedRegistryStore) -> Response | None:
    from flask import request
    from mlflow.server import handlers

    if handlers._get_model_registry_store() is not store:  # noqa: SLF001
        return _flask_answer("the guarded registry was replaced; start the server again", 503)
    query = request.query_string.decode(errors="replace")
    seen = Request(request.method, request.path, query)
    try:
        if needs_body(seen):
            seen = Request(request.method, request.path, query, request.get_data(cache=True))
        judge.check(seen)
    except RefusedMoveError as error:
        return _flask_answer(f"safegen refuses: {error}", 403)
    return None


def _flask_answer(message: str, status: int) -> Response:
    from flask import jsonify, make_response

    return make_response(jsonify(_error(message, status)), status)


def _error(message: str, status: int) -> dict[str, str]:
    return {
        "error_code": "PERMISSION_DENIED" if status == 403 else "TEMPORARILY_UNAVAILABLE",
        "message": message,
    }


class _GuardedAsgiApp:
    """Judges what FastAPI answers itself, such as uploads of artifacts, before it does."""

    def __init__(self, app: ASGIApp, judge: RequestJudge) -> None:
        self._app, self._judge = app, judge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from anyio import to_thread
        from starlette.responses import JSONResponse

        seen = Request(scope["method"], scope["path"], scope["query_string"].decode(errors="replace"))
        try:
            if needs_body(seen):
                body, receive = await _read_body(receive)
                seen = Request(seen.method, seen.path, seen.query, body)
            await to_thread.run_sync(self._judge.check, seen)
        except RefusedMoveError as error:
            answer = JSONResponse(_error(f"safegen refuses: {error}", 403), status_code=403)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _read_body(receive: Receive) -> tuple[bytes, Receive]:
    """Read a whole body; the returned `receive` gives it again."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedMoveError("the request ended before its body")
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body, given = b"".join(chunks), False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return body, again
