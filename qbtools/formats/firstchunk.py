"""Begins the first chunk of an archive while the key of the header is still being derived.

At that time its key can only be derived from the plain header, which anybody can change. That is no risk: the key is
not used until the header has been authenticated, and it authenticates the chunk like any other key.
"""

from __future__ import annotations

from contextlib import suppress

from qbtools.errors import QbError
from qbtools.formats import chunks
from qbtools.formats.container import Key
from qbtools.formats.containerhead import HEADER_SIZE, OVERHEAD, parse_fixed
from qbtools.formats.limits import Limits
from qbtools.formats.outertar import MemberReader
from qbtools.formats.workers import Future, beside


class FirstChunk:
    """The first bytes of the first chunk's container, and its key."""

    def __init__(self, members: MemberReader, passphrase: bytes, untrusted_id: str, limits: Limits, taken: int) -> None:
        """Reads from members, whose position is behind the header. taken: bytes of memory for the key of the header.

        Raises no QbError: errors are raised when the chunk is opened.
        """
        self.untrusted_header = b""
        """The first bytes of the container; empty if they could not be read."""
        self.key: Future[Key] | None = None
        """None if the derivation could not be started."""
        member = members.look()
        if member is None or member.size < OVERHEAD:
            return
        with suppress(QbError):
            self.untrusted_header = members.read(HEADER_SIZE)
            name, number = chunks.parse_member(member.untrusted_name)
            parameters, salt = parse_fixed(self.untrusted_header)
            limits.check(parameters)
            if taken + parameters.memory <= limits.memory:
                secret = chunks.chunk_passphrase(passphrase, untrusted_id, name, number)

                def derive() -> Key:
                    with limits.turn():
                        return Key(secret, parameters, salt)

                self.key = beside(derive)
