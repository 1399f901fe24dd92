"""Merkle hashing and proofs: published vectors, a slow reference, and forgeries."""

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import LogCorruptedError, LogError
from compliance.log.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_hash,
    verify_consistency,
    verify_inclusion,
)

# google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc: kInputs, kSHA256Roots,
# kSHA256Paths (leaves counted from 1 there), kSHA256Proofs.
INPUTS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
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
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
LEAVES = [leaf_hash(bytes.fromhex(entry)) for entry in INPUTS]

many = [leaf_hash(index.to_bytes(2, "big")) for index in range(300)]


def slow_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, read off the page: split at the largest power of two below the size."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(slow_root(leaves[:split]), slow_root(leaves[split:]))


@st.composite
def index_and_size(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, len(many)))
    return draw(st.integers(0, size - 1)), size


@pytest.mark.parametrize(("size", "root"), list(enumerate(ROOTS, 1)))
def test_roots_match_the_published_ones(size: int, root: str) -> None:
    assert root_hash(LEAVES[:size]).hex() == root


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert root_hash([]) == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_match_the_published_ones(index: int, size: int, proof: list[str]) -> None:
    made = inclusion_proof(LEAVES, index, size)
    assert [part.hex() for part in made] == proof
    root = bytes.fromhex(ROOTS[size - 1])
    verify_inclusion(LEAVES[index], index=index, size=size, proof=made, root=root)


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_consistency_proofs_match_the_published_ones(old: int, new: int, proof: list[str]) -> None:
    made = consistency_proof(LEAVES, old, new)
    assert [part.hex() for part in made] == proof
    verify_consistency(
        old_size=old,
        new_size=new,
        old_root=bytes.fromhex(ROOTS[old - 1]),
        new_root=bytes.fromhex(ROOTS[new - 1]),
        proof=made,
    )


def test_roots_equal_the_recursive_definition_at_every_size() -> None:
    for size in range(len(many) + 1):
        assert root_hash(many[:size]) == slow_root(many[:size])


@given(index_and_size())
def test_every_leaf_can_be_proved(place: tuple[int, int]) -> None:
    index, size = place
    proof = inclusion_proof(many, index, size)
    assert len(proof) <= (size - 1).bit_length()
    verify_inclusion(many[index], index=index, size=size, proof=proof, root=root_hash(many[:size]))


def test_consistency_holds_between_all_sizes_up_to_40() -> None:
    roots = [root_hash(many[:size]) for size in range(41)]
    for new in range(1, 41):
        for old in range(1, new + 1):
            verify_consistency(
                old_size=old,
                new_size=new,
                old_root=roots[old],
                new_root=roots[new],
                proof=consistency_proof(many, old, new),
            )


def _forgeries(proof: list[bytes]) -> Iterator[list[bytes]]:
    wrong = leaf_hash(b"wrong")
    yield [*proof, wrong]
    yield [wrong, *proof]
    yield [*proof, b""]
    if proof:
        yield proof[:-1]
        yield proof[1:]
    for position in range(len(proof)):
        yield [*proof[:position], wrong, *proof[position + 1 :]]
        yield [*proof[:position], proof[position][:-1], *proof[position + 1 :]]


@given(index_and_size(), st.data())
def test_wrong_inclusion_proofs_are_refused(place: tuple[int, int], data: st.DataObject) -> None:
    index, size = place
    proof = inclusion_proof(many, index, size)
    root = root_hash(many[:size])
    for forged in _forgeries(proof):
        with pytest.raises(LogCorruptedError):
            verify_inclusion(many[index], index=index, size=size, proof=forged, root=root)
    with pytest.raises(LogCorruptedError):
        verify_inclusion(leaf_hash(b"x"), index=index, size=size, proof=proof, root=root)
    with pytest.raises(LogCorruptedError):
        verify_inclusion(many[index], index=index, size=size, proof=proof, root=many[0][::-1])
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        with pytest.raises(LogCorruptedError):
            verify_inclusion(many[index], index=other, size=size, proof=proof, root=root)


@given(index_and_size())
def test_wrong_consistency_proofs_are_refused(place: tuple[int, int]) -> None:
    old, new = place[0] + 1, place[1]
    proof = consistency_proof(many, old, new)
    roots = {"old_root": root_hash(many[:old]), "new_root": root_hash(many[:new])}
    for forged in _forgeries(proof):
        with pytest.raises(LogCorruptedError):
            verify_consistency(old_size=old, new_size=new, proof=forged, **roots)
    for name in roots:
        with pytest.raises(LogCorruptedError):
            verify_consistency(
                old_size=old, new_size=new, proof=proof, **(roots | {name: leaf_hash(b"x")})
            )


@given(index_and_size(), st.integers(0, 299))
def test_a_rewritten_entry_cannot_be_hidden(place: tuple[int, int], rewritten: int) -> None:
    old, new = place[0] + 1, place[1]
    rewritten %= old
    history = [*many[:rewritten], leaf_hash(b"rewritten"), *many[rewritten + 1 :]]
    with pytest.raises(LogCorruptedError):
        verify_consistency(
            old_size=old,
            new_size=new,
            old_root=root_hash(many[:old]),
            new_root=root_hash(history[:new]),
            proof=consistency_proof(history, old, new),
        )


def test_consistency_from_the_empty_tree_is_no_proof() -> None:
    with pytest.raises(LogError):
        consistency_proof(LEAVES, 0, 8)
    with pytest.raises(LogError):
        verify_consistency(
            old_size=0, new_size=8, old_root=EMPTY_ROOT, new_root=root_hash(LEAVES), proof=[]
        )


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (0, 9)])
def test_proofs_outside_the_tree_are_refused(index: int, size: int) -> None:
    with pytest.raises(LogError):
        inclusion_proof(LEAVES, index, size)
    with pytest.raises(LogError):
        consistency_proof(LEAVES, index + 1, size)
    with pytest.raises(LogError):
        verify_inclusion(LEAVES[0], index=index, size=size, proof=[], root=LEAVES[0])


def test_an_inner_node_cannot_pass_for_a_leaf() -> None:
    entry = LEAVES[0] + LEAVES[1]
    assert leaf_hash(entry) != node_hash(LEAVES[0], LEAVES[1])
