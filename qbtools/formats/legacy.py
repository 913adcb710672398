"""Archives of version 3 (Qubes OS 2 to 3.2), read only.

Each chunk NAME.NNN of a file is followed by NAME.NNN.hmac, the text that `openssl dgst -ALG -hmac PASSPHRASE` printed
for the stored chunk; backup-header.hmac is the same for the header. In an encrypted archive each file is one stream of
`openssl enc` (opensslenc.py), which was then cut into chunks. No MAC protects names and order. Source of every rule:
the qb-format(5) page, "Older versions".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator

from qbtools.errors import PASSPHRASE_HINT, Damaged, WrongPassphrase
from qbtools.formats import chunks, header
from qbtools.formats.limits import Limits
from qbtools.formats.openarchive import Archive, Event
from qbtools.formats.opensslenc import HEADROOM, Decryptor
from qbtools.formats.outertar import MemberReader
from qbtools.formats.workers import Future, done

NOT_PROTECTED = "an archive of version 3: missing or exchanged files, and files of another backup, are not detected"
"""The warning about errors that the HMACs of this version cannot detect."""

_SUFFIX = ".hmac"
_STEP = 1 << 20
_MEMBER = re.compile(r"(.+)\.([0-9]{3}|[1-9][0-9]{3,6})", re.ASCII)

# The names of digests in the output of openssl, in lower case. Some versions of openssl print no name.
_LABELS = {
    "sha1": ("sha1",),
    "sha256": ("sha256", "sha2-256"),
    "sha384": ("sha384", "sha2-384"),
    "sha512": ("sha512", "sha2-512"),
}


def open_header(untrusted_plain: bytes, untrusted_hmac: bytes, passphrase: bytes) -> header.BackupHeader:
    """The header of an archive of version 3, authenticated.

    The algorithm is read from the header before that. This is safe: the HMAC needs the passphrase with any algorithm
    of the list. WrongPassphrase if the HMAC differs: this cannot be told from a damaged header. Damaged if something
    is malformed.
    """
    untrusted = header.parse(untrusted_plain)
    mac = parse_hmac(untrusted_hmac, untrusted.hmac_algorithm, chunks.HEADER_MAC)
    if not hmac.compare_digest(mac, _hmac(passphrase, memoryview(untrusted_plain), untrusted.hmac_algorithm)):
        raise WrongPassphrase(
            "the passphrase is wrong",
            f"{PASSPHRASE_HINT}; or backup-header is damaged: version 3 cannot tell the two apart",
        )
    return untrusted


def parse_hmac(untrusted: bytes, algorithm: str, what: str) -> bytes:
    """The MAC in the text that `openssl dgst` printed. algorithm: as in BackupHeader. what: its name in messages.

    Damaged for a text that no version of openssl prints for that algorithm.
    """
    text = untrusted.decode("latin-1")
    label, found, digits = text.removesuffix("\n").partition("(stdin)= ")
    size = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    known = label.lower().removeprefix("hmac-") in _LABELS[algorithm] or not label
    if not found or not known or not re.fullmatch(f"[0-9a-fA-F]{{{size}}}", digits, re.ASCII):
        raise Damaged(f"{what} is not what openssl dgst prints for {algorithm}")
    return bytes.fromhex(digits)


def parse_member(untrusted_member: str) -> tuple[str, int]:
    """File and chunk number of a member. A complete directory is the file `PATH/.`. Damaged if it is not a chunk."""
    if untrusted_member in (chunks.HEADER, chunks.HEADER_MAC):
        raise Damaged(f"a second {untrusted_member}: a file holds one archive")
    match = _MEMBER.fullmatch(untrusted_member)
    if not match:
        raise Damaged(f"{untrusted_member}: not the name of a chunk")
    if problem := chunks.name_problem(match[1], final_dot=True):
        raise Damaged(f"{untrusted_member}: {problem}")
    return match[1], int(match[2])


def _hmac(passphrase: bytes, data: memoryview, algorithm: str) -> bytes:
    mac = hmac.new(passphrase, digestmod=algorithm)
    for at in range(0, len(data), _STEP):
        mac.update(data[at : at + _STEP])
    return mac.digest()


class LegacyArchive(Archive):
    """An archive of version 3 whose header has been authenticated. Its events are those of any archive.

    The last bytes of an encrypted file are in an additional event with data and size 0, after its last chunk: the
    padding is only known there. The MAC of an event is the HMAC.
    """

    no_manifest = NOT_PROTECTED

    def __init__(
        self,
        members: MemberReader,
        found: header.BackupHeader,
        passphrase: bytes,
        limits: Limits,
        jobs: Callable[[int], int],
        warn: Callable[[str], None],
    ) -> None:
        """found: the result of open_header, which was read from members. The rest as for Opening.archive."""
        super().__init__(members, found, 0, passphrase, limits, jobs, warn)
        self._order = chunks.Order(None, False, warn, legacy=True)
        self._decryptor: Decryptor | None = None
        self._chunks = 0

    def _bound(self, untrusted_member: str) -> int:
        return header.MAX_MEMBER if untrusted_member.endswith(_SUFFIX) else self._limits.chunk

    def _parse(self, untrusted_member: str, size: int) -> tuple[str, int, int]:
        return *parse_member(untrusted_member), size

    def _open(self, name: str, number: int, size: int) -> Future[Event]:
        """Reads a chunk and its HMAC, and gives both to a worker."""
        self._budget.take(size)
        buffer = self._buffers.take(HEADROOM + size)
        view = memoryview(buffer)
        self._members.read_into(view[HEADROOM : HEADROOM + size])

        def release() -> None:
            self._buffers.give(buffer)
            self._budget.give(size)

        mac = self._read_hmac(name, number)
        return self._pool.submit(self._verify, Event(name, number, size, mac, view, release, self.read))

    def _pass(self, name: str, number: int, size: int) -> Future[Event]:
        self._members.skip(size)
        mac = self._read_hmac(name, number)
        return done(Event(name, number, size, mac, position=self.read))

    def _read_hmac(self, name: str, number: int) -> bytes:
        """The HMAC that must follow a chunk."""
        due = f"{name}.{number:03d}{_SUFFIX}"
        member = self._members.next()
        if member is None or member.untrusted_name != due:
            raise Damaged(f"{due} is missing behind its chunk")
        return parse_hmac(self._members.read_all(), self.header.hmac_algorithm, due)

    def _verify(self, chunk: Event) -> Event:
        """Runs in a worker."""
        view = chunk.data or memoryview(b"")
        body = view[HEADROOM : HEADROOM + chunk.size]
        if not hmac.compare_digest(chunk.mac, _hmac(self._passphrase, body, self.header.hmac_algorithm)):
            raise Damaged(f"{chunk.name}.{chunk.number:03d} does not authenticate: the archive is damaged here")
        if not self.header.encrypted:
            chunk.data = body
        return chunk

    def _decrypted(self, event: Event) -> Iterator[Event]:
        """Runs in the thread of the caller: each chunk needs the end of the chunk before."""
        if not self.header.encrypted:
            yield event
            return
        try:
            if event.ends:
                if self._decryptor:
                    yield Event(event.name, self._chunks, data=memoryview(self._decryptor.finish()))
                self._decryptor = None
            else:
                self._decrypt(event)
        except Damaged as error:
            raise Damaged(f"{event.name} is damaged or incomplete: {error.message}") from None
        yield event

    def _decrypt(self, event: Event) -> None:
        self._chunks = event.number + 1
        if event.number == 0 and event.data is not None:
            self._decryptor = Decryptor(self._passphrase)
        if event.data is None or self._decryptor is None:  # not wanted, or no longer
            self._decryptor = event.data = None
        else:
            event.data = self._decryptor.update(event.data, HEADROOM + event.size)
