"""The archive that the vectors are made of, the words for what must happen, and what the programs say."""

from __future__ import annotations

from vectors.archivebytes import CHUNK, ID, OTHER_ID, Piece, Pieces, content, file, header, header_pair, manifest
from vectors.vectorfile import Vector

ROOT = "vm1/root.img"
OTHER = "vm2/root.img"
ROOT_DATA = content(ROOT, 600)  # three chunks
OTHER_DATA = content(OTHER, CHUNK)  # two, the second one empty


def whole(backup_id: str = ID, mark: str = "") -> Pieces:
    """The archive that all faults are made of."""
    files = file("qubes.xml", content("qubes.xml", 200), backup_id, mark=mark)
    files += file(ROOT, ROOT_DATA, backup_id, mark=mark) + file(OTHER, OTHER_DATA, backup_id, mark=mark)
    return header_pair(header(backup_id)) + files + [manifest(files, backup_id, mark)]


BASE = whole()
OTHER_BACKUP = whole(OTHER_ID)  # the same files under the same passphrase
ATTEMPT = whole(mark="again")  # and under the same ID
HEADERS, FILES, MANIFEST = BASE[:2], BASE[2:-1], BASE[-1]
BODIES = dict(BASE)
SEALED = [f"{ROOT}.000.enc", f"{ROOT}.001.enc", f"{ROOT}.002.enc"]
EMPTY = f"{OTHER}.001.enc"
HMAC = "backup-header.hmac"
LAST = "qb-manifest.000.enc"


def good(about: str, data: bytes, **changes: str) -> Vector:
    said = {"about": about, "verify": "0", "read": "0", "stdout": "600", "list": "0", "structure": "0", "header": "0"}
    if "--max-chunk" in changes.get("options", ""):
        del said["header"]  # qb-header reads no chunk
    return said | changes, data


def bad(about: str, data: bytes, verdict: str, out: int = 0, **changes: str) -> Vector:
    """All programs but qb-header say verdict, where changes tell nothing else. out: bytes on stdout."""
    said = {"about": about, "verify": verdict, "read": verdict, "stdout": str(out), "list": verdict}
    return said | {"structure": verdict} | changes, data


def swapped(first: str, second: str) -> Pieces:
    """The bodies of two members change places."""
    bodies = BODIES | {first: BODIES[second], second: BODIES[first]}
    return [(name, bodies[name]) for name, _ in BASE]


def replaced(name: str, body: bytes) -> Pieces:
    return [(each, body if each == name else data) for each, data in BASE]


def without(*names: str) -> Pieces:
    return [piece for piece in BASE if piece[0] not in names]


def before(name: str, *pieces: Piece) -> Pieces:
    at = [each for each, _ in BASE].index(name)
    return [*BASE[:at], *pieces, *BASE[at:]]


def named(pieces: Pieces, name: str) -> Piece:
    return name, dict(pieces)[name]


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def not_authentic(member: str) -> str:
    return f"4 {member} does not authenticate: the archive is damaged here"


def out_of_place(came: str, due: str) -> str:
    return f"4 {came} comes where {due} is due: a chunk is missing, doubled or out of place"


def missing(name: str) -> str:
    return f"4 {name} is missing: the archive is incomplete"


def other_than_listed(name: str) -> str:
    return f"4 {name} is not the file that the manifest lists"


NO_CONTAINER = "is not an scrypt container"
CHECKSUM = "has a damaged header: its plain checksum is wrong"
EARLY = "4 the archive ends in the middle of"
WRONG = "3 the passphrase is wrong"
NO_BACKUP = "4 not a backup: backup-header is not where it must be"
NO_BYTE = "4 the archive is empty: did the program before fail?"
NO_HMAC = "4 not a backup: backup-header.hmac is not where it must be"
NO_MANIFEST = "4 the manifest is missing: the archive is incomplete"
FOLLOWS = "4 something follows the end of the archive"
CHANGED = "4 backup-header differs from its sealed copy: the archive was changed"
TAR_SUM = "4 a tar header has a wrong checksum"
NUMBER = "4 a number in a tar header is malformed"
PATH = "not a relative path of letters, digits and _ . @ + -"
UNSURE = "the archive has no manifest: files that are missing at its end cannot be detected"
