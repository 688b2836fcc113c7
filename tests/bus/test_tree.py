"""The tree gives the answers of RFC 6962, however it is built."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.port import StoredRecord
from bus.tree import (
    EMPTY,
    SubtreeRows,
    Tree,
    headers_digest,
    leaf,
    leaf_hash,
    leaf_hashes,
    leaf_of,
    node_hash,
)
from contracts.ids import sha256

# The inputs and roots of the reference implementation of RFC 6962 (certificate-transparency, merkle_tree_test).
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
HASHES = [leaf_hash(data) for data in INPUTS]


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, by the definition of RFC 6962."""
    if len(hashes) < 2:
        return hashes[0] if hashes else EMPTY
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return node_hash(root_of(hashes[:split]), root_of(hashes[split:]))


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Tree().root() == EMPTY == root_of([])
    assert EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_roots_are_those_of_the_reference_implementation() -> None:
    tree = Tree()
    for size, (data, root) in enumerate(zip(INPUTS, ROOTS, strict=True), 1):
        tree.append(data)
        assert (tree.size, tree.root().hex()) == (size, root)
        assert root_of(HASHES[:size]).hex() == root


@given(st.integers(0, 200))
def test_a_growing_tree_agrees_with_one_built_at_once(size: int) -> None:
    tree = Tree()
    for n in range(size):
        tree.append(str(n).encode())
    assert tree.root() == root_of([leaf_hash(str(n).encode()) for n in range(size)])


@given(st.integers(0, 200))
def test_rows_have_the_root_of_every_first_part(size: int) -> None:
    hashes = [leaf_hash(str(n).encode()) for n in range(size)]
    rows = SubtreeRows(b"".join(hashes))
    assert rows.size == size
    assert [rows.root(n) for n in range(size + 1)] == [root_of(hashes[:n]) for n in range(size + 1)]


@pytest.mark.parametrize(
    "sizes", [(0,), (7,), (SubtreeRows.RUN, 0), (SubtreeRows.RUN, 5), (2 * SubtreeRows.RUN, SubtreeRows.RUN, 700)]
)
def test_rows_of_runs_joined_are_those_over_all_leaves(sizes: tuple[int, ...]) -> None:
    hashes = [leaf_hash(str(n).encode()) for n in range(sum(sizes))]
    parts = [b"".join(hashes[sum(sizes[:n]) : sum(sizes[: n + 1])]) for n in range(len(sizes))]
    rows = SubtreeRows.joined([SubtreeRows(part, SubtreeRows.RUN_HEIGHT) for part in parts])
    assert rows.size == len(hashes)
    for size in {0, len(hashes) // 3, len(hashes)}:
        assert rows.root(size) == root_of(hashes[:size])


def test_a_copy_grows_on_its_own() -> None:
    tree = Tree()
    tree.append(INPUTS[0])
    twin = tree.copy()
    twin.append(INPUTS[1])
    assert [tree.root().hex(), twin.root().hex()] == ROOTS[:2]
    assert (tree.size, twin.size) == (1, 2)


def test_a_leaf_is_its_canonical_lines() -> None:
    stored = StoredRecord(7, "swarm.ev.00.s.trainer.thing_said", b"{}", {"Swarm-Sig": "k:v", "traceparent": "00-1"})
    digest = sha256(b"stigmergy/headers/1\nSwarm-Sig:k:v\n")
    body = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert leaf_of(stored) == f"stigmergy/leaf/1\n7\n{stored.subject}\n{body}\n{digest}\n".encode()
    assert leaf_of(stored) == leaf(7, stored.subject, sha256(b"{}"), headers_digest({"Swarm-Sig": "k:v"}))


def test_the_hashes_of_many_leaves_are_those_of_each() -> None:
    columns = [7, 12], ["swarm.ev.a", "swarm.ev.b"], ["0" * 64, "1" * 64], ["2" * 64, "3" * 64]
    assert leaf_hashes(*columns) == b"".join(leaf_hash(leaf(*one)) for one in zip(*columns, strict=True))
    assert leaf_hashes([], [], [], []) == b""


def test_an_absent_signature_is_not_an_empty_one() -> None:
    assert headers_digest({}) == headers_digest({"traceparent": "00-1"}) != headers_digest({"Swarm-Sig": ""})
