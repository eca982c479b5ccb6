from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.domain.digests import digest_json, sha256_bytes, sha256_file, tree_digest, tree_digests
from safegen.errors import DataError

# FIPS 180-4 example, and the canonical form of RFC 8785, section 3.2.2.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_bytes_and_files_have_the_standards_digest(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "abc") == ABC


def test_json_is_digested_in_its_canonical_form() -> None:
    value = {
        "text": "\u20ac$\u000f\nA'B\"\\/",
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3],
        "a": [None, True],
    }
    canonical = (
        '{"a":[null,true],"numbers":[333333333.3333333,1e+30,4.5,0.002],"text":"€$\\u000f\\nA\'B\\"\\\\/"}'
    )
    assert digest_json(value) == hashlib.sha256(canonical.encode()).hexdigest()


@given(st.dictionaries(st.text(), PLAIN, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert digest_json(value) == digest_json(dict(reversed(list(value.items()))))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, {1: 2}, "\ud800", b"x", object(), {"a": {1}}]
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="cannot digest"):
        digest_json(value)


def test_a_tree_is_its_paths_and_contents(tmp_path: Path) -> None:
    (tmp_path / "b" / "empty").mkdir(parents=True)
    (tmp_path / "b" / "x.json").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"abc")
    assert list(tree_digests(tmp_path).items()) == [("a", ABC), ("b/x.json", ABC)]
    assert tree_digest(tmp_path) == digest_json({"a": ABC, "b/x.json": ABC})


def test_a_tree_digest_changes_with_a_byte_and_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digests = [tree_digest(tmp_path)]
    (tmp_path / "a").write_bytes(b"abd")
    digests.append(tree_digest(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    digests.append(tree_digest(tmp_path))
    assert len(set(digests)) == 3


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(DataError, match="symbolic link"):
        tree_digest(tmp_path)
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        tree_digest(tmp_path)


def test_missing_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        tree_digest(tmp_path / "none")
    with pytest.raises(DataError, match="cannot hash"):
        sha256_file(tmp_path / "none")
