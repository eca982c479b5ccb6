"""A real `mlflow server --app-name safegen`: what it refuses, over every way in, and what it lets through."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from safegen.adapters.decision_signature import sign_decision
from safegen.adapters.guard_settings import PUBLIC_KEYS
from safegen.adapters.mlflow_registry import MlflowModelRegistry
from safegen.adapters.mlflow_tracking import MlflowTracker
from safegen.adapters.signing_keys import create_key_pair, read_private_key
from safegen.domain.decision import CheckOutcome, Decision
from safegen.domain.digests import tree_digest
from safegen.errors import RegistryError
from tests.mlflow_servers import Guarded

pytestmark = pytest.mark.integration

SHA = "ab" * 32
APIS = ("api", "ajax-api")
_numbers = itertools.count()


@dataclass(frozen=True)
class Candidate:
    model: str
    version: str
    model_id: str
    digest: str


def decision(model: str, digest: str, *, passed: bool = True) -> Decision:
    checks = (
        CheckOutcome(name="explicit/nrr >= 0.9 (low)", kind="policy", passed=passed, reason="0.95 observed"),
    )
    return Decision(
        outcome="pass" if passed else "blocked",
        model=model,
        checks=checks,
        checkpoint_sha256=digest,
        report_sha256=SHA,
        results_sha256=SHA,
        policy_sha256=SHA,
        versions={"safegen": "0"},
        decided_utc=datetime(2026, 11, 25, tzinfo=UTC),
    )


@pytest.fixture
def candidate(guarded: Guarded, tmp_path: Path) -> Candidate:
    """A version of a model of its own, not decided on yet."""
    return register(guarded, tmp_path, f"miniature-{next(_numbers)}")


@pytest.fixture(scope="module")
def pending(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A version that tests share which change nothing."""
    return register(guarded, tmp_path_factory.mktemp("pending"), "pending")


def register(guarded: Guarded, tmp_path: Path, model: str) -> Candidate:
    number = next(_numbers)
    folder = tmp_path / f"checkpoint-{number}"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(number.to_bytes(8, "little") * 16)
    digest = tree_digest(folder)
    with MlflowTracker(guarded.session).start_run(
        experiment="safegen/guard/edit", run_name="r", tags={}, description=""
    ) as run:
        model_id = run.log_model_folder("candidate", folder, {"checkpoint_digest": digest})
    version = MlflowModelRegistry(guarded.session).register_candidate(
        model, model_id, tags={"checkpoint_digest": digest, "decision": "pass"}, description=""
    )
    return Candidate(model, version, model_id, digest)


def attach(guarded: Guarded, candidate: Candidate, text: str) -> None:
    guarded.client.set_model_version_tag(candidate.model, candidate.version, "signed_decision", text)


def promote(guarded: Guarded, candidate: Candidate) -> None:
    signed = sign_decision(decision(candidate.model, candidate.digest), guarded.key)
    attach(guarded, candidate, signed.to_json())
    guarded.client.set_registered_model_alias(candidate.model, "champion", candidate.version)


def move_stage(guarded: Guarded, candidate: Candidate, stage: str, *, archive: bool = False) -> None:
    with pytest.warns(FutureWarning, match="stages"):
        guarded.client.transition_model_version_stage(candidate.model, candidate.version, stage, archive)


def assert_refused(response: requests.Response, reason: str) -> None:
    assert response.status_code == 403, response.text
    assert response.json()["error_code"] == "PERMISSION_DENIED"
    assert reason in response.json()["message"]


def champion(guarded: Guarded, model: str) -> str | None:
    return MlflowModelRegistry(guarded.session).version_of_alias(model, "champion")


def test_a_signed_pass_for_the_files_moves_the_alias(guarded: Guarded, candidate: Candidate) -> None:
    promote(guarded, candidate)
    assert champion(guarded, candidate.model) == candidate.version
    move_stage(guarded, candidate, "Production")
    found = guarded.client.get_model_version(candidate.model, candidate.version)
    assert (found.current_stage, found.source) == ("Production", f"models:/{candidate.model_id}")


def test_a_pass_in_a_bare_tag_moves_nothing(guarded: Guarded, candidate: Candidate) -> None:
    with pytest.raises(RestException, match="no signed decision"):
        guarded.client.set_registered_model_alias(candidate.model, "champion", candidate.version)
    with pytest.raises(RegistryError, match="no signed decision"):
        MlflowModelRegistry(guarded.session).set_alias(candidate.model, "Live", candidate.version)
    assert champion(guarded, candidate.model) is None
    guarded.client.set_registered_model_alias(candidate.model, "candidate", candidate.version)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("alias", ["champion", "CHAMPION", "live"])
def test_alias_moves_are_refused_on_every_path(
    guarded: Guarded, pending: Candidate, api: str, alias: str
) -> None:
    body = {"name": pending.model, "alias": alias, "version": pending.version}
    assert_refused(guarded.call("POST", "registered-models/alias", body, api), "no signed decision")
    twice = requests.post(
        f"{guarded.uri}/{api}/2.0/mlflow/registered-models/alias", json=json.dumps(body), timeout=30
    )
    assert_refused(twice, "no signed decision")


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("stage", ["Production", "staging"])
def test_stage_transitions_are_refused(guarded: Guarded, pending: Candidate, api: str, stage: str) -> None:
    body = {"name": pending.model, "version": pending.version, "stage": stage}
    body["archive_existing_versions"] = False
    assert_refused(guarded.call("POST", "model-versions/transition-stage", body, api), "no signed decision")
    archived = guarded.call("POST", "model-versions/transition-stage", {**body, "stage": "Archived"}, api)
    assert archived.status_code == 200


def forged(guarded: Guarded, candidate: Candidate, tmp_path: Path) -> dict[str, tuple[str, str]]:
    """Documents that prove nothing, and what is wrong with each."""
    good = sign_decision(decision(candidate.model, candidate.digest), guarded.key)
    other = read_private_key(create_key_pair(tmp_path / "other").private)
    blocked = decision(candidate.model, candidate.digest, passed=False)
    blocked_text = sign_decision(blocked, guarded.key)
    altered = blocked_text.payload.replace('"blocked"', '"pass"').replace('"passed":false', '"passed":true')
    return {
        "another digest": (
            sign_decision(decision(candidate.model, SHA), guarded.key).to_json(),
            "about checkpoint abababab",
        ),
        "another model": (
            sign_decision(decision("other", candidate.digest), guarded.key).to_json(),
            "about model 'other'",
        ),
        "blocked": (blocked_text.to_json(), "decision is blocked"),
        "altered": (blocked_text.model_copy(update={"payload": altered}).to_json(), "does not fit"),
        "another key": (
            sign_decision(decision(candidate.model, candidate.digest), other).to_json(),
            "not trusted",
        ),
        "another key under the trusted name": (
            sign_decision(decision(candidate.model, candidate.digest), other)
            .model_copy(update={"key_id": good.key_id})
            .to_json(),
            "does not fit",
        ),
        "no signature": (good.model_copy(update={"signature": "AAAA"}).to_json(), "does not fit"),
        "no base64": (good.model_copy(update={"signature": "?"}).to_json(), "not base64"),
        "unsigned": (decision(candidate.model, candidate.digest).model_dump_json(), "schema"),
        "no document": ("pass", "not valid JSON"),
    }


def test_forged_decisions_prove_nothing(guarded: Guarded, candidate: Candidate, tmp_path: Path) -> None:
    cases = forged(guarded, candidate, tmp_path)
    body = {"name": candidate.model, "alias": "champion", "version": candidate.version}
    for text, reason in cases.values():
        attach(guarded, candidate, text)
        assert_refused(guarded.call("POST", "registered-models/alias", body), reason)
    assert champion(guarded, candidate.model) is None


def test_the_decision_of_another_version_proves_nothing(
    guarded: Guarded, candidate: Candidate, tmp_path: Path
) -> None:
    second = register(guarded, tmp_path, candidate.model)
    promote(guarded, candidate)
    attach(guarded, second, sign_decision(decision(second.model, candidate.digest), guarded.key).to_json())
    with pytest.raises(RestException, match="its files are checkpoint"):
        guarded.client.set_registered_model_alias(second.model, "champion", second.version)
    assert champion(guarded, candidate.model) == candidate.version


def test_files_that_were_changed_behind_the_server_are_noticed(
    guarded: Guarded, candidate: Candidate
) -> None:
    [weights] = guarded.artifacts.glob(f"*/models/{candidate.model_id}/artifacts/unet/weights.safetensors")
    weights.write_bytes(b"other weights")
    with pytest.raises(RestException, match="its files are checkpoint"):
        promote(guarded, candidate)


def test_a_description_that_loads_foreign_code_is_refused(guarded: Guarded, candidate: Candidate) -> None:
    [description] = guarded.artifacts.glob(f"*/models/{candidate.model_id}/artifacts/MLmodel")
    description.write_text(description.read_text().replace("safegen.adapters.mlflow_pyfunc", "os"))
    with pytest.raises(RestException, match="loader other than safegen's"):
        promote(guarded, candidate)


@pytest.mark.parametrize("api", APIS)
def test_what_is_promoted_stays(guarded: Guarded, candidate: Candidate, api: str) -> None:
    promote(guarded, candidate)
    name, version = candidate.model, candidate.version
    refused = [
        ("DELETE", "registered-models/alias", {"name": name, "alias": "champion"}),
        ("DELETE", "model-versions/delete", {"name": name, "version": version}),
        ("DELETE", "registered-models/delete", {"name": name}),
        ("POST", "registered-models/rename", {"name": name, "new_name": f"{name}-renamed"}),
        ("DELETE", "model-versions/delete-tag", {"name": name, "version": version, "key": "signed_decision"}),
        ("DELETE", f"logged-models/{candidate.model_id}", None),
        ("PATCH", f"logged-models/{candidate.model_id}", {"status": "LOGGED_MODEL_UPLOAD_FAILED"}),
    ]
    for method, path, body in refused:
        assert_refused(guarded.call(method, path, body, api), "safegen refuses")
    forgery = {"name": name, "version": version, "key": "signed_decision", "value": "pass"}
    assert_refused(guarded.call("POST", "model-versions/set-tag", forgery, api), "not valid JSON")
    assert champion(guarded, name) == version


def test_a_stage_is_not_emptied_but_handed_on(guarded: Guarded, candidate: Candidate, tmp_path: Path) -> None:
    promote(guarded, candidate)
    move_stage(guarded, candidate, "Production")
    with pytest.raises(RestException, match="serves a guarded stage"):
        move_stage(guarded, candidate, "Archived")
    second = register(guarded, tmp_path, candidate.model)
    promote(guarded, second)
    move_stage(guarded, second, "Production", archive=True)
    guarded.client.delete_model_version(candidate.model, candidate.version)
    assert champion(guarded, candidate.model) == second.version


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "source",
    [
        "s3://bucket/model",
        "models:/m-" + "0" * 32,
        "models:/{model}/{version}",
        "models:/{model_id}/unet",
        "runs:/x/m",
    ],
)
def test_versions_of_other_sources_are_refused(
    guarded: Guarded, pending: Candidate, api: str, source: str
) -> None:
    body = {"name": pending.model, "source": source.format(**dataclasses.asdict(pending))}
    response = guarded.call("POST", "model-versions/create", body, api)
    assert response.status_code in (400, 403, 404), response.text
    if source.startswith(("s3", "models:/{model}/")):
        assert_refused(response, "is not allowed")
    assert len(guarded.client.search_model_versions(f"name='{pending.model}'")) == 1


def test_a_copy_of_a_version_is_refused(guarded: Guarded, pending: Candidate) -> None:
    with pytest.raises(MlflowException, match="is not allowed"):
        guarded.client.copy_model_version(f"models:/{pending.model}/{pending.version}", "copied")


@pytest.mark.parametrize("api", APIS)
def test_files_of_a_finished_model_cannot_be_written(guarded: Guarded, pending: Candidate, api: str) -> None:
    [folder] = guarded.artifacts.glob(f"*/models/{pending.model_id}/artifacts")
    path = folder.relative_to(guarded.artifacts).as_posix()
    for written in (path, path.replace("m-", "%6D-"), path.replace("m-", "%256D-")):
        url = f"{guarded.uri}/{api}/2.0/mlflow-artifacts/artifacts/{written}/model_index.json"
        assert_refused(requests.put(url, data=b"{}", timeout=30), "is finished")
        assert_refused(requests.delete(url, timeout=30), "is finished")
    url = f"{guarded.uri}/{api}/2.0/mlflow-artifacts/mpu/create/{path}/model_index.json"
    assert_refused(requests.post(url, json={"path": "x", "num_parts": 1}, timeout=30), "is finished")
    presigned = {"model_id": pending.model_id, "path": "model_index.json"}
    assert_refused(guarded.call("POST", "artifacts/presigned-upload-url", presigned, api), "is finished")
    assert (folder / "model_index.json").read_text() == "{}"


def test_ways_that_are_not_known_are_refused(guarded: Guarded, pending: Candidate) -> None:
    body = {"name": pending.model, "alias": "champion", "version": pending.version}
    for path in (
        "api/3.0/mlflow/registered-models/alias",
        "ajax-api/3.0/mlflow/registered-models/alias",
        "api/2.0/mlflow/registered-models/alias/",
        "api/2.0/mlflow//registered-models/alias",
        "api/2.0/preview/mlflow/registered-models/alias",
        "api/2.0/mlflow/registered-models/aliases",
        "api/2.0/mlflow/registered%2Dmodels/al%69as",
    ):
        response = requests.post(f"{guarded.uri}/{path}", json=body, timeout=30)
        assert_refused(response, "safegen refuses")
    response = requests.put(f"{guarded.uri}/api/2.0/mlflow/registered-models/alias", json=body, timeout=30)
    assert_refused(response, "that safegen knows")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"pass"', b"\xff", b"alias=champion"])
def test_a_body_that_cannot_be_read_is_refused(guarded: Guarded, body: bytes) -> None:
    url = f"{guarded.uri}/api/2.0/mlflow/registered-models/alias"
    assert_refused(requests.post(url, data=body, timeout=30), "body")


def test_graphql_reads_and_nothing_else(guarded: Guarded, pending: Candidate) -> None:
    def ask(query: str) -> requests.Response:
        return requests.post(f"{guarded.uri}/graphql", json={"query": query}, timeout=30)

    versions = (
        "{ mlflowSearchModelVersions(input: {filter: \"name='pending'\"}) { modelVersions { version } } }"
    )
    found = ask(versions)
    assert found.status_code == 200
    assert pending.version in found.text
    assert_refused(ask("mutation { setRegisteredModelAlias { ok } }"), "mutation")
    assert_refused(ask("mutation { ...all } fragment all on Mutation { testMutation }"), "mutation")
    assert_refused(ask("mutation {"), "cannot be read")


def test_other_work_goes_on(guarded: Guarded, candidate: Candidate) -> None:
    client = guarded.client
    client.update_model_version(candidate.model, candidate.version, "Its page.")
    client.set_model_version_tag(candidate.model, candidate.version, "note", "x")
    client.set_registered_model_alias(candidate.model, "candidate", candidate.version)
    client.delete_registered_model_alias(candidate.model, "candidate")
    client.set_logged_model_tags(candidate.model_id, {"note": "x"})
    client.rename_registered_model(candidate.model, f"{candidate.model}-renamed")
    client.delete_registered_model(f"{candidate.model}-renamed")
    client.delete_logged_model(candidate.model_id)


def test_without_a_key_nothing_is_promoted() -> None:
    from safegen.adapters.promotion_proof import PromotionProof, RefusedMoveError, VersionFacts

    class NoModels:
        def read(self, model_id):
            raise AssertionError(model_id)

        digest = read

    version = VersionFacts("m", "1", "models:/m-" + "0" * 32, "", {"signed_decision": "{}"})
    with pytest.raises(RefusedMoveError, match=f"start it with {PUBLIC_KEYS}"):
        PromotionProof(f"start it with {PUBLIC_KEYS}", NoModels()).require(version)
