"""
The Merkle tree of RFC 6962 over the digests of events.

    leaf = SHA-256(0x00 + digest)
    node = SHA-256(0x01 + left + right)

The left part of a tree of n leaves has as many as the largest power of two below n. The hash of a tree
without leaves is SHA-256 of nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

EMPTY: Final = hashlib.sha256().digest()
"""The hash of a tree without leaves."""

TILE: Final = 256
"""How many leaves are hashed together while a tree is read: a power of two."""


def leaf(digest: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + digest).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return hashlib.sha256(b"\1" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the hash of a tree from those of its leaves, or of its parts of equal size."""
    if not hashes:
        return EMPTY
    level = list(hashes)
    while len(level) > 1:
        last = level[-1:] if len(level) % 2 else []
        level = [node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + last
    return level[0]


def split(size: int) -> int:
    """Return the number of leaves of a tree's left part. size: 2 or more."""
    return 1 << ((size - 1).bit_length() - 1)


class Tree:
    """
    A tree that proves some of its leaves, in 1/256 of the memory that all of them take.

    The leaves are added in order. ``keep`` names the one that was added last; only such leaves can be
    proven, and only the sizes at which such a leaf was the last can be proven to be earlier ones.
    """

    def __init__(self) -> None:
        self.size = 0
        self._tiles: list[bytes] = []
        self._kept: dict[int, list[bytes]] = {}
        self._last: list[bytes] = []
        self._keeps_last = False

    def add(self, digest: bytes) -> None:
        """Add a leaf."""
        if len(self._last) == TILE:
            self._end_tile()
        self._last.append(leaf(digest))
        self.size += 1

    def keep(self) -> int:
        """Keep what proves the last leaf; return its index."""
        self._keeps_last = True
        return self.size - 1

    def _end_tile(self) -> None:
        if self._keeps_last:
            self._kept[len(self._tiles)] = self._last
        self._tiles.append(fold(self._last))
        self._last, self._keeps_last = [], False

    def root(self) -> bytes:
        """Return the hash of the tree."""
        return self._hash(0, self.size)

    def prove(self, indexes: Collection[int]) -> list[bytes]:
        """
        Return the hashes which, with the kept leaves of these indexes, give the root; from left to right.

        For no indexes that is the root itself.
        """
        return list(self._missing(sorted(indexes), 0, self.size))

    def _missing(self, indexes: list[int], start: int, end: int) -> Iterator[bytes]:
        if not indexes:
            yield self._hash(start, end)
        elif end - start > 1:
            middle = start + split(end - start)
            yield from self._missing([i for i in indexes if i < middle], start, middle)
            yield from self._missing([i for i in indexes if i >= middle], middle, end)

    def prove_consistency(self, earlier: int) -> list[bytes]:
        """Return the proof of RFC 6962 that the tree was once this large, and only grew since."""
        return list(self._grown(earlier, 0, self.size, is_known=True)) if earlier else []

    def _grown(self, earlier: int, start: int, end: int, *, is_known: bool) -> Iterator[bytes]:
        if earlier == end:
            if not is_known:
                yield self._hash(start, end)
            return
        middle = start + split(end - start)
        if earlier <= middle:
            yield from self._grown(earlier, start, middle, is_known=is_known)
            yield self._hash(middle, end)
        else:
            yield from self._grown(earlier, middle, end, is_known=False)
            yield self._hash(start, middle)

    def _hash(self, start: int, end: int) -> bytes:
        """Return the hash of a part of the tree, as ``split`` divides it."""
        first, after = divmod(start, TILE)
        if after or (end - start < TILE and end != self.size):
            return fold(self._leaves(first)[after : after + end - start])
        tiles = self._tiles[first : -(-end // TILE)]
        if end > len(self._tiles) * TILE:
            tiles.append(fold(self._last))
        return fold(tiles)

    def _leaves(self, tile: int) -> list[bytes]:
        return self._last if tile == len(self._tiles) else self._kept[tile]


def root_of(size: int, digests: Mapping[int, bytes], hashes: Sequence[bytes]) -> bytes:
    """
    Return the root that some leaves' digests, by index, and the hashes of ``Tree.prove`` give.

    Raises ValueError if there are too few or too many hashes, or an index is not in the tree.
    """
    left_over = iter(hashes)

    def walk(indexes: list[int], start: int, end: int) -> bytes:
        if not indexes:
            return _next(left_over)
        if end - start == 1:
            return leaf(digests[start])
        middle = start + split(end - start)
        left = walk([i for i in indexes if i < middle], start, middle)
        return node(left, walk([i for i in indexes if i >= middle], middle, end))

    indexes = sorted(digests)
    if indexes and not 0 <= indexes[0] <= indexes[-1] < size:
        raise ValueError("a leaf is not in the tree")
    root = walk(indexes, 0, size)
    _end(left_over)
    return root


def grown_root(earlier: int, later: int, root: bytes, hashes: Sequence[bytes]) -> bytes:
    """
    Return the root of a tree from an earlier size and root, and the hashes of ``prove_consistency``.

    earlier: 1 or more.

    Raises ValueError if the hashes do not give the earlier root, or there are too few or too many.
    """
    left_over = iter(hashes)

    def walk(before: int, after: int, *, is_known: bool) -> tuple[bytes, bytes]:
        if before == after:
            known = root if is_known else _next(left_over)
            return known, known
        middle = split(after)
        if before <= middle:
            old, new = walk(before, middle, is_known=is_known)
            return old, node(new, _next(left_over))
        old, new = walk(before - middle, after - middle, is_known=False)
        left = _next(left_over)
        return node(left, old), node(left, new)

    if not 0 < earlier <= later:
        raise ValueError("the earlier tree is not the smaller one")
    old, new = walk(earlier, later, is_known=True)
    _end(left_over)
    if old != root:
        raise ValueError("the hashes do not give the earlier root")
    return new


def _next(hashes: Iterator[bytes]) -> bytes:
    found = next(hashes, None)
    if found is None:
        raise ValueError("hashes are missing")
    return found


def _end(hashes: Iterator[bytes]) -> None:
    if next(hashes, None) is not None:
        raise ValueError("there are more hashes than the tree needs")


# -- lanes ------------------------------------------------------------------------------------


def of_lanes(lanes: Sequence[tuple[int, bytes]]) -> bytes:
    """
    Return the root of a log from the size and root of the tree of each of its lanes.

    With one lane it is that lane's root. With several, it is the hash of a tree with a leaf for each lane:
    its size, as 8 bytes with the highest first, and its root.
    """
    if len(lanes) == 1:
        return lanes[0][1]
    return fold([leaf(size.to_bytes(8, "big") + root) for size, root in lanes])
