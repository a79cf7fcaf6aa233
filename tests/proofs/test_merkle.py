"""The tree of RFC 6962: published vectors, and proofs at every size and of every choice of leaves."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog.eventlog.proofs import merkle
from tests.properties.profiles import examples

LEAVES = [
    bytes.fromhex(text)
    for text in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
        "606162636465666768696a6b6c6d6e6f",
    )
]
"""The leaves of the vectors that Certificate Transparency published with RFC 6962."""
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The root of the first 0, 1, ... 8 of them."""
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
"""The published proofs of consistency, by the earlier and the later size."""
SIZES = st.integers(1, 1_100) | st.sampled_from([255, 256, 257, 512, 513, 768, 1_024])


def tree(digests: list[bytes], kept: set[int]) -> merkle.Tree:
    made = merkle.Tree()
    for index, digest in enumerate(digests):
        made.add(digest)
        if index in kept:
            assert made.keep() == index
    return made


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def by_definition(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 6962 defines it."""
    if len(leaves) < 2:
        return merkle.leaf(leaves[0]) if leaves else merkle.EMPTY
    middle = merkle.split(len(leaves))
    return merkle.node(by_definition(leaves[:middle]), by_definition(leaves[middle:]))


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_that_were_published(size: int) -> None:
    assert tree(LEAVES[:size], set()).root().hex() == ROOTS[size]


@pytest.mark.parametrize(("earlier", "later"), CONSISTENCY)
def test_the_proofs_of_consistency_are_those_that_were_published(earlier: int, later: int) -> None:
    proof = tree(LEAVES[:later], {earlier - 1}).prove_consistency(earlier)
    assert [each.hex() for each in proof] == CONSISTENCY[earlier, later]
    root = merkle.grown_root(earlier, later, bytes.fromhex(ROOTS[earlier]), proof)
    assert root.hex() == ROOTS[later]


@examples(100)
@given(SIZES, st.data())
def test_any_leaves_with_their_proof_give_the_root_and_changed_ones_another(
    size: int, data: st.DataObject
) -> None:
    all_digests = digests(size)
    kept = data.draw(st.sets(st.integers(0, size - 1), max_size=9))
    made = tree(all_digests, kept)
    proof = made.prove(kept)
    leaves = {index: all_digests[index] for index in kept}
    assert made.root() == by_definition(all_digests) == merkle.root_of(size, leaves, proof)
    assert len(proof) <= max(1, len(kept) * size.bit_length())
    for index in kept:
        assert merkle.root_of(size, {**leaves, index: bytes(32)}, proof) != made.root()
    with pytest.raises(ValueError, match="more hashes"):
        merkle.root_of(size, leaves, [*proof, bytes(32)])
    if proof:
        with pytest.raises(ValueError, match="missing"):
            merkle.root_of(size, leaves, proof[:-1])
        assert merkle.root_of(size, leaves, [bytes(32), *proof[1:]]) != made.root()


@examples(100)
@given(SIZES, st.data())
def test_a_tree_is_shown_to_have_grown_from_any_earlier_size(
    size: int, data: st.DataObject
) -> None:
    earlier = data.draw(st.integers(1, size))
    all_digests = digests(size)
    made = tree(all_digests, {earlier - 1})
    proof = made.prove_consistency(earlier)
    old = by_definition(all_digests[:earlier])
    assert merkle.grown_root(earlier, size, old, proof) == made.root()
    if proof:
        with pytest.raises(ValueError, match="missing"):
            merkle.grown_root(earlier, size, old, proof[:-1])
        with pytest.raises(ValueError, match=r"earlier root|more hashes"):
            merkle.grown_root(earlier, size, bytes(32), [*proof, bytes(32)])


def test_hashes_that_do_not_give_the_earlier_root_are_refused() -> None:
    made = tree(LEAVES, {5})
    with pytest.raises(ValueError, match="do not give the earlier root"):
        merkle.grown_root(6, 8, bytes(32), made.prove_consistency(6))
    with pytest.raises(ValueError, match="not the smaller"):
        merkle.grown_root(9, 8, made.root(), [])
    with pytest.raises(ValueError, match="not in the tree"):
        merkle.root_of(8, {8: bytes(32)}, [])


def test_a_root_of_lanes_depends_on_the_size_root_and_place_of_each() -> None:
    assert merkle.of_lanes([(7, b"r" * 32)]) == b"r" * 32
    lanes = [(1, b"a" * 32), (2, b"b" * 32), (0, merkle.EMPTY)]
    leaves = [merkle.leaf(size.to_bytes(8, "big") + root) for size, root in lanes]
    assert merkle.of_lanes(lanes) == merkle.node(merkle.node(*leaves[:2]), leaves[2])
    others = [
        [lanes[1], lanes[0], lanes[2]],
        [(3, lanes[0][1]), *lanes[1:]],
        [(1, b"c" * 32), *lanes[1:]],
    ]
    assert merkle.of_lanes(lanes) not in map(merkle.of_lanes, others)
