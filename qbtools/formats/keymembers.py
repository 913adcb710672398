"""The members between the header and the first chunk: wrapped passphrases, and the signature.

With `key=True` in its header, an archive contains its passphrase, wrapped by another program: at least one of the key
members follows backup-header.hmac. With `signed=ssh`, the signature follows them. Source of names, bounds and order:
the qb-format(5) page, "Backup key".
"""

from __future__ import annotations

from qbtools.errors import Damaged
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

AGE = "qb-key.age"
"""The output of age for all recipients together."""

STRETCHED = "qb-key.scrypt"
"""An scrypt container that a typed passphrase opens."""

COMMAND = "qb-key.command"
"""The output of the user's own CMD."""

SIGNATURE = "qb-signature"
"""An SSH signature of the header."""

BOUNDS = {AGE: 1 << 16, STRETCHED: 1 << 12, COMMAND: 1 << 16, SIGNATURE: 1 << 16}
"""The maximum bytes of each, by name, in their order in the archive."""

ORDER = list(BOUNDS)
"""Their names, in that order."""


def check_place(untrusted_member: str, before: Iterable[str]) -> None:
    """Damaged if a member of BOUNDS must not follow the members before it."""
    if untrusted_member in before:
        raise Damaged(f"{untrusted_member} occurs twice")
    for other in before:
        if ORDER.index(other) > ORDER.index(untrusted_member):
            raise Damaged(f"{untrusted_member} comes after {other}: it is out of place")


def check_promise(found: Iterable[str], key: bool, signed: bool) -> None:
    """Damaged if the members found differ from the promise of the header. key, signed: the values of the header."""
    keys = [name for name in found if name != SIGNATURE]
    if key and not keys:
        raise Damaged("the archive has no wrapped passphrase, but its header promises one")
    if keys and not key:
        raise Damaged(f"{keys[0]} is in the archive, but its header promises no wrapped passphrase")
    if signed and SIGNATURE not in found:
        raise Damaged("the archive has no signature, but its header promises one")
    if not signed and SIGNATURE in found:
        raise Damaged(f"{SIGNATURE} is in the archive, but its header promises no signature")
