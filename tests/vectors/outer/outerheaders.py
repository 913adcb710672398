"""The header members, versions, and what is asked of an archive."""

from __future__ import annotations

from outerbase import (
    BASE,
    CHANGED,
    HEADERS,
    HMAC,
    NO_BACKUP,
    NO_BYTE,
    NO_CONTAINER,
    NO_HMAC,
    OTHER_BACKUP,
    ROOT,
    SEALED,
    bad,
    before,
    good,
    replaced,
)
from vectors.archivebytes import ID, OTHER_ID, archive, content, header, header_pair
from vectors.tarbytes import END
from vectors.vectorfile import Vector


def headers() -> dict[str, Vector]:
    """The header edited, doubled, missing, malformed, of other versions. Those below `sealed-` are authentic."""
    plain = header()
    rest = BASE[2:]
    sealed = {
        "unknown-version": (plain.replace(b"version=4", b"version=5"), "unknown version 5"),
        "no-version": (plain[10:], "no version: an archive of version 2 or older, which is not read"),
        "missing-key": (plain.replace(b"encrypted=True\n", b""), "encrypted is missing"),
        "missing-id": (plain.replace(b"backup-id=", b"backup-no="), "backup-id is missing"),
        "filter-shell": (plain.replace(b"=gzip", b"=$(id)"), "compression-filter has a malformed value: $(id)"),
        "filter-path": (plain.replace(b"=gzip", b"=/bin/sh"), "compression-filter has a malformed value: /bin/sh"),
        "filter-unknown": (plain.replace(b"=gzip", b"=tee"), "compression-filter has an unknown value: tee"),
        "not-ascii": (plain + "farbe=grün\n".encode(), "not ASCII"),
        "doubled-key": (plain + b"chunk-size=1\n", "chunk-size occurs twice"),
        "chunk-size": (plain.replace(b"size=256", b"size=0"), "chunk-size has an unknown value: 0"),
        "not-encrypted": (plain.replace(b"encrypted=True", b"encrypted=0"), "says that an archive of version 4 is not"),
    }
    vectors = {}
    for name, (data, text) in sealed.items():
        verdict = f"4 backup-header: {text}"
        vectors[f"sealed-{name}"] = bad(
            "authentic, but malformed", archive(header_pair(data) + rest), verdict, header=verdict
        )
    backwards = plain.replace(b"version=4", b"version=3").replace(b"=scrypt", b"=sha512")
    backwards += b"crypto-algorithm=aes-256-cbc\n"
    verdict = "4 backup-header says version 3 in an archive of version 4"
    vectors["sealed-version-3"] = bad(
        "version 3, sealed as version 4",
        archive(header_pair(backwards) + rest),
        verdict,
        header=verdict,
        structure="4 an archive of version 3: only version 4 has a structure to check",
    )
    edits = {
        "chunk-size": (plain.replace(b"size=256", b"size=512"), "4 vm1/root.img.001.enc comes after the last chunk"),
        "no-manifest": (plain.replace(b"manifest=True", b"manifest=None"), "4 backup-header: manifest has an unknown"),
        "manifest-false": (plain.replace(b"manifest=True", b"manifest=no"), f"4 {HMAC} does not have the size"),
        "id": (plain.replace(ID.encode(), OTHER_ID.encode()), "0"),
        "filter": (plain.replace(b"=gzip", b"=zstd"), "0"),
        "version": (plain.replace(b"version=4", b"version=5"), "4 backup-header: unknown version 5"),
        "newline": (plain[:-1], f"4 {HMAC} does not have the size of what it seals"),
        "case": (plain.replace(b"True", b"TRUE"), "0"),
        "empty": (b"", "4 backup-header: no version"),
    }
    for name, (data, structure) in edits.items():
        vectors[f"edited-{name}"] = bad(
            "the plain header is edited",
            archive(replaced("backup-header", data)),
            CHANGED,
            structure=structure,
            header=CHANGED,
        )
    return vectors


def arrangements() -> dict[str, Vector]:
    plain, sealed = HEADERS
    rest = BASE[2:]
    big = ("backup-header", plain[1] + b"x" * (4097 - len(plain[1])))
    long_sealed = (HMAC, sealed[1] + bytes(4097 - len(sealed[1])))
    second = "4 a second backup-header: a file holds one archive"
    second_hmac = f"4 a second {HMAC}: a file holds one archive"
    found = {
        "no-header": ([sealed, *rest], NO_BACKUP, NO_BACKUP, 0),
        "no-hmac": ([plain, *rest], NO_HMAC, NO_HMAC, 0),
        "no-pair": (rest, NO_BACKUP, NO_BACKUP, 0),
        "turned": ([sealed, plain, *rest], NO_BACKUP, NO_BACKUP, 0),
        "header-twice": ([plain, plain, sealed, *rest], NO_HMAC, NO_HMAC, 0),
        "hmac-twice": ([plain, sealed, sealed, *rest], second_hmac, "0", 0),
        "pair-twice": ([*HEADERS, *HEADERS, *rest], second, "0", 0),
        "pair-later": (before(SEALED[1], *HEADERS), second, "0", 256),
        "archives": ([*BASE[:-1], *OTHER_BACKUP], second, "0", 600),
        "file-first": ([rest[0], *HEADERS, *rest[1:]], NO_BACKUP, NO_BACKUP, 0),
        "too-large": ([big, sealed, *rest], "4 backup-header is too long: 4097 bytes", "", 0),
        "hmac-too-large": ([plain, long_sealed, *rest], f"4 {HMAC} is too long: 4097 bytes", "", 0),
        "hmac-short": ([plain, (HMAC, sealed[1][:95]), *rest], f"4 {HMAC} is too short for an scrypt container", "", 0),
        "hmac-empty": ([plain, (HMAC, b""), *rest], f"4 {HMAC} is too short for an scrypt container", "", 0),
        "hmac-text": ([plain, (HMAC, b"(stdin)= " + b"0" * 128), *rest], f"4 {HMAC} {NO_CONTAINER}", "", 0),
        "hmac-cut": (
            [plain, (HMAC, sealed[1][:127]), *rest],
            f"4 {HMAC}: too short for an scrypt container",
            "",
            0,
        ),
    }
    vectors = {}
    for name, (pieces, verdict, shown, out) in found.items():
        changes = {"structure": f"4 {HMAC} does not have the size of what it seals"} if name == "hmac-cut" else {}
        vectors[f"pair-{name}"] = bad(
            "the header members", archive(pieces), verdict, out, header=shown or verdict, **changes
        )
    for name, data, verdict in (
        ("nothing", b"", NO_BYTE),
        ("zeros", bytes(5120), NO_BACKUP),
        ("end", END, NO_BACKUP),
    ):
        vectors[f"pair-{name}"] = bad("no member at all", data, verdict, header=verdict)
    for name, data, verdict in (
        ("text", b"hello\n", "4 the archive is not a sealed archive"),
        ("gzip", b"\x1f\x8b\x08" + content("gzip", 2000), "4 the archive is gzip data, not a sealed archive"),
    ):
        vectors[f"no-tar-{name}"] = bad("no tar archive", data, verdict, header=verdict)
    return vectors


def versions() -> dict[str, Vector]:
    """Archives of versions 3 and 2."""
    three = header().replace(b"version=4", b"version=3").replace(b"=scrypt", b"=sha512")
    three = three[: three.index(b"backup-id")] + b"crypto-algorithm=aes-256-cbc\n"
    two = three[10:]
    line = b"SHA2-512(stdin)= " + b"0" * 128 + b"\n"
    vectors = {}
    for name, data, verdict, structure in (
        (
            "version-3",
            three,
            "3 the passphrase is wrong",
            "4 an archive of version 3: only version 4",
        ),
        ("version-2", two, "4 backup-header: no version: an archive of version 2 or older, which is not read", ""),
    ):
        pieces = [("backup-header", data), (HMAC, line), (f"{ROOT}.000", b"Salted__"), (f"{ROOT}.000.hmac", line)]
        vectors[name] = bad(
            f"an archive of {name}", archive(pieces), verdict, structure=structure or verdict, header=verdict
        )
    return vectors


def expectations() -> dict[str, Vector]:
    """--expect-id and --require-version."""

    def asked(options: str, verdict: str) -> Vector:
        return bad(f"with {options}", archive(BASE), verdict, options=options, structure="0", header=verdict)

    return {
        "expect-id": good("the ID that is there", archive(BASE), options=f"--expect-id {ID}"),
        "expect-id-other": asked(f"--expect-id {OTHER_ID}", f"5 the archive has the backup ID {ID}, not {OTHER_ID}"),
        "expect-id-beginning": asked(f"--expect-id {ID[:-1]}", f"5 the archive has the backup ID {ID}, not {ID[:-1]}"),
        "require-version": good("the version that is there", archive(BASE), options="--require-version 4"),
        "require-version-3": asked("--require-version 3", "5 the archive has version 4, not 3"),
        "require-version-5": asked("--require-version 5", "2 --require-version: must be 3 or 4"),
    }


def vectors() -> dict[str, Vector]:
    return headers() | arrangements() | versions() | expectations()
