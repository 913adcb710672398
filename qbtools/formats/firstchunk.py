"""The first chunk of an archive, begun while the key of the header is still being derived.

What is known of it then comes from the plain header, which anybody can change. That is no risk: the key that is derived
from it opens nothing until the header has been authenticated, and authenticates the chunk as any key does.
"""

from __future__ import annotations

from concurrent.futures import Future

from qbtools.errors import QbError
from qbtools.formats import chunks
from qbtools.formats.container import Key
from qbtools.formats.containerhead import HEADER_SIZE, OVERHEAD, parse_fixed
from qbtools.formats.limits import Limits
from qbtools.formats.outertar import Member, MemberReader
from qbtools.formats.workers import beside


class FirstChunk:
    """The member of the first chunk, the first bytes of its container, and its key."""

    def __init__(self, members: MemberReader, passphrase: bytes, untrusted_id: str, limits: Limits, taken: int) -> None:
        """Reads from members, which stand behind the header. taken: bytes of memory that the header's key takes.

        Raises no QbError: what is wrong is said when the chunk's turn comes.
        """
        self.untrusted_header = b""
        """The first bytes of the container; empty where the member is too short for one."""
        self.key: Future[Key] | None = None
        """None where it could not be begun."""
        self._member: Member | None = None
        self._error: QbError | None = None
        try:
            self._member = members.next()
            if self._member is not None and self._member.size >= OVERHEAD:
                self.untrusted_header = members.read(HEADER_SIZE)
        except QbError as error:
            self._error = error
        if self.untrusted_header and self._member is not None:
            try:
                name, number = chunks.parse_member(self._member.untrusted_name)
                parameters, salt = parse_fixed(self.untrusted_header)
                limits.check(parameters)
            except QbError:
                return
            if taken + parameters.memory <= limits.memory:
                secret = chunks.chunk_passphrase(passphrase, untrusted_id, name, number)
                self.key = beside(lambda: Key(secret, parameters, salt))

    def member(self) -> Member | None:
        """What members.next() returned, or raised."""
        if self._error is not None:
            raise self._error
        return self._member
