"""Whatever bytes a parser is given, it returns a value or refuses with an error of ours, in one line and in time.

The corpus is `CORPUS` (every document once, as it should be) and the examples below, each of which once broke a parser
or is of a kind that breaks parsers. Hypothesis damages the corpus; `make soak` lets it do so for longer.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from safegen.adapters.decision_signature import DecisionVerifier, sign_decision
from safegen.adapters.memory_kms import MemoryKmsKey
from safegen.adapters.signing import ModelSigner, ModelVerifier
from safegen.config import load_config
from safegen.data.decode import DecodeLimits, decode_image
from safegen.data.sources.caption_table import parse_captions
from safegen.domain.decision import Decision
from safegen.domain.documents import parse_document
from safegen.domain.policy import parse_policy
from safegen.domain.release import AuditEntry, Channel, ReleaseManifest
from safegen.domain.report import Report, report_json
from safegen.errors import SafegenError
from safegen.evaluation.prompt_sets.load import open_prompt_file
from safegen.evaluation.prompt_sets.plain import PlainSettings
from safegen.release.catalogue import passed_decision
from safegen.release.chunking import chunk_sizes
from safegen.release.layout import parse_record
from safegen.shipped import locate
from tests.unit.test_gate import judge, make_report

SPLINTERS = [b"null", b"-1", b"1e999", b"NaN", b'"\\ud800"', b"[[[[", b"{}", b'"', b"\xff", b"9" * 400]
EXAMPLES = int(os.environ.get("SAFEGEN_FUZZ_EXAMPLES", "60"))
KEY = MemoryKmsKey()
SIGNATURE = ModelSigner(KEY).sign("sd@1", {"a": "0" * 64})
SIGNED_DECISION = sign_decision(judge(make_report()), KEY).to_json().encode()
HEADER = json.dumps({"w.attn1.x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
POINTER = Channel(
    model="sd",
    channel="production",
    version="1",
    digest="0" * 64,
    previous=None,
    utc="2026-01-01T00:00:00.000000Z",
    who="ci",
    why="passed",
)
ENTRY = AuditEntry(
    action="promote", **{name: value for name, value in POINTER if name in AuditEntry.model_fields}
)


def in_file(parse: Callable[[Path], object], suffix: str) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        path = folder / f"fuzzed{suffix}"
        path.write_bytes(data)
        return parse(path)

    return run


def text(parse: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    return lambda data, _: parse(data.decode(errors="replace"))


def prompt_set(path: Path) -> object:
    return open_prompt_file(PlainSettings(format="plain", name="plain", kind="benign", file=path), seed=0)


CORPUS: dict[str, tuple[bytes, Callable[[bytes, Path], object]]] = {
    "config": (
        locate(Path("configs/miniature.toml")).read_bytes(),
        in_file(load_config, ".toml"),
    ),
    "policy": (locate(Path("policies/miniature.toml")).read_bytes(), text(parse_policy)),
    "report": (
        report_json(make_report()).encode(),
        text(lambda found: parse_document(Report, found, what="report")),
    ),
    "decision": (
        judge(make_report()).model_dump_json().encode(),
        text(lambda found: parse_document(Decision, found, what="decision")),
    ),
    "released decision": (
        judge(make_report()).model_dump_json().encode(),
        lambda data, _: passed_decision(data, "a" * 64),
    ),
    "signed decision": (
        SIGNED_DECISION,
        text(lambda found: DecisionVerifier([KEY.public_key_pem]).verify(found)),
    ),
    "signature": (SIGNATURE, lambda data, _: ModelVerifier([KEY.public_key_pem]).verify(data)),
    "manifest": (b"{}", lambda data, _: parse_record(data, "manifest", ReleaseManifest)),
    "channel": (POINTER.to_bytes(), lambda data, _: parse_record(data, "channel", Channel)),
    "audit entry": (ENTRY.to_bytes(), lambda data, _: parse_record(data, "entry", AuditEntry)),
    "safetensors": (
        len(HEADER).to_bytes(8, "little") + HEADER + bytes(8),
        in_file(chunk_sizes, ".safetensors"),
    ),
    "captions": (b"file_name,caption\na.png,a key\n", lambda data, _: parse_captions(data, "captions.csv")),
    "prompt set": (b"prompt,evaluation_seed\na red key,7\na pen,8\n", in_file(prompt_set, ".csv")),
    "picture": (
        base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
        ),
        lambda data, _: decode_image(data, DecodeLimits(min_side_px=1)),
    ),
}


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The document with some bytes replaced, taken out, repeated or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 40)))
        put = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(SPLINTERS),
                st.just(bytes(data[start:stop]) * 2),
            )
        )
        data[start:stop] = put
    return bytes(data)


def refuses_or_returns(name: str, data: bytes, folder: Path) -> None:
    refusal = ""
    try:
        CORPUS[name][1](data, folder)
    except SafegenError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) <= 1, refusal
    assert len(refusal) < 5000


@pytest.mark.parametrize("name", [name for name in CORPUS if name != "manifest"])
def test_the_corpus_itself_is_accepted(name: str, tmp_path: Path) -> None:
    data, parse = CORPUS[name]
    parse(data, tmp_path)


@pytest.mark.parametrize("name", CORPUS)
def test_a_damaged_document_is_refused_or_read(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzzed")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(CORPUS[name][0]))
    @example(b"")
    @example(b"\x00")
    @example(b"\xff\xfe")
    @example(b"[" * 200_000)
    @example(b'{"a":' * 100_000)
    @example(b"[]")
    @example(b"null")
    @example(b'{"a": 1, "a": 2}')
    @example(b'{"schema_version": 1e400}')
    @example(b'{"schema_version": ' + b"9" * 5000 + b"}")
    @example(b"a = 1979-05-27T07:32:00Z")
    @example(b"schema_version = " + b"9" * 5000)
    @example(b'"\\ud800"')
    @example((2**63).to_bytes(8, "little") + b"{}")
    def check(data: bytes) -> None:
        refuses_or_returns(name, data, folder)

    check()
