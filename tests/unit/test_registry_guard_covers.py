"""Whether this MLflow has ways to change the registry that the guard has not been told of."""

from __future__ import annotations

import inspect

from mlflow.protos.databricks_pb2 import rpc
from mlflow.protos.model_registry_pb2 import ModelRegistryService
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from safegen.adapters.mlflow_guarded_store import GuardedRegistryStore
from safegen.adapters.mlflow_requests import _JUDGED_BY_THE_STORE

READS = ("get_", "search_", "list_")
# What these write is neither an alias nor a stage, a source or a deletion of a version; prompts go through the
# guarded methods of the store itself.
HARMLESS = {
    "create_registered_model",
    "update_registered_model",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "update_model_version",
    "copy_model_version",  # made of create_model_version
    "create_webhook",
    "update_webhook",
    "delete_webhook",
    "test_webhook",
    "supports_workspaces",
    "create_prompt",
    "create_prompt_version",
    "delete_prompt",
    "delete_prompt_version",
    "delete_prompt_alias",
    "delete_prompt_tag",
    "delete_prompt_version_tag",
    "set_prompt_alias",
    "set_prompt_tag",
    "set_prompt_version_tag",
    "link_prompt_version_to_model",
    "link_prompt_version_to_run",
    "link_prompts_to_trace",
}


def test_every_method_that_writes_is_guarded_or_known_to_be_harmless() -> None:
    writes = {
        name
        for name, _ in inspect.getmembers(SqlAlchemyStore)
        if not name.startswith(("_", *READS)) and callable(getattr(SqlAlchemyStore, name, None))
    }
    guarded = {name for name in writes if name in vars(GuardedRegistryStore)}
    assert writes - guarded - HARMLESS == set()
    assert guarded == {
        "create_model_version",
        "delete_model_version",
        "delete_model_version_tag",
        "delete_registered_model",
        "delete_registered_model_alias",
        "rename_registered_model",
        "set_model_version_tag",
        "set_registered_model_alias",
        "transition_model_version_stage",
    }


def test_every_request_that_writes_is_known() -> None:
    served = set()
    for method in ModelRegistryService.DESCRIPTOR.methods:
        for endpoint in method.GetOptions().Extensions[rpc].endpoints:
            if endpoint.method != "GET" and "webhooks" not in endpoint.path:
                served.add(
                    (endpoint.method, endpoint.path.removeprefix("/mlflow/").removeprefix("/preview/mlflow/"))
                )
    assert served == _JUDGED_BY_THE_STORE
