"""Counting votes: which version of a range most children have, and which failure most of them met. Pure.

Of versions with equally many votes the one that came last wins, as in QEMU (quorum_count_vote puts a new version in
front, quorum_get_vote_winner takes the first of the greatest): with a threshold of at most half the children a tie
must give a guest of either the same bytes.
"""

from collections.abc import Iterable, Sequence

from blockyard.base.errors import BlockError
from blockyard.node.drivers._copies import is_same, outcome


def versions_of(copies: Sequence[bytearray], voters: Iterable[int]) -> list[list[int]]:
    """The voters grouped by what they read, each group in order, groups in the order of their first voter."""
    versions: list[list[int]] = []
    for voter in voters:
        alike = next((version for version in versions if is_same(copies[version[0]], copies[voter])), None)
        if alike is None:
            versions.append([voter])
        else:
            alike.append(voter)
    return versions


def winner_of(versions: Sequence[list[int]]) -> list[int]:
    """The version with most votes."""
    return max(reversed(versions), key=len)


def voted_failure(failures: Iterable[BlockError]) -> BlockError:
    """The failure that most children met (quorum_vote_error): they are alike if the error number is."""
    found: dict[tuple[str, int], list[BlockError]] = {}
    for failure in failures:
        found.setdefault(outcome(failure), []).append(failure)
    return max(reversed(list(found.values())), key=len)[0]
