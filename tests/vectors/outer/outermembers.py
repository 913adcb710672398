"""Members of the tar archive, and what of them is read all the same."""

from __future__ import annotations

from outerbase import (
    BASE,
    BODIES,
    EMPTY,
    FILES,
    FOLLOWS,
    HEADERS,
    HMAC,
    LAST,
    NO_CONTAINER,
    NUMBER,
    OTHER,
    OTHER_BACKUP,
    PATH,
    ROOT,
    ROOT_DATA,
    SEALED,
    TAR_SUM,
    UNSURE,
    bad,
    flipped,
    good,
    not_authentic,
    out_of_place,
)
from vectors.archivebytes import CHUNK, Pieces, archive, blocks, chunk, content, file, header, header_pair, manifest
from vectors.tarbytes import END, GNU, NO_MAGIC, binary, extended, head, pad, pax, regular
from vectors.vectorfile import Vector


def accepted() -> dict[str, Vector]:
    """What must be read."""
    pieces = blocks(BASE)
    one = file(ROOT, ROOT_DATA)
    costly = [chunk(ROOT, n, ROOT_DATA[n * CHUNK :][:CHUNK], log_n=11 + n, r=1 + n, p=3 - n) for n in range(3)]
    dear = FILES[:1] + costly + FILES[4:]
    path = [(b"PaxHeaders/a", pax(("path", ROOT + ".000.enc"), ("size", 384), ("uid", -1)) + head(b"x", 384))]
    body = path[0][1] + pad(BODIES[SEALED[0]])
    unnamed = header(more="colour=green\n")
    shown = {"header": "0"}
    return {
        "whole": good("what qbtools writes", archive(BASE)),
        "no-end": good("no end-of-archive blocks", archive(BASE, b"")),
        "one-end-block": good("one zero block at the end", archive(BASE, bytes(512))),
        "cut-in-end": good("the last zero block is cut", archive(BASE)[:-100]),
        "zero-blocks": good("a zero block before each member", b"".join(bytes(512) + each for each in pieces)),
        "more-zeros": good("many zeros at the end, not a multiple of 512", archive(BASE, bytes(3333))),
        "one-file": good("one file without metadata", archive([*HEADERS, *one, manifest(one)])),
        "other-parameters": good("each chunk has parameters of its own", archive([*HEADERS, *dear, manifest(dear)])),
        "pax": good("a pax header with path and size", b"".join(pieces[:3]) + body + b"".join(pieces[4:]) + END),
        "type-nul": good("members of the oldest type", b"".join(regular(d, n.encode(), b"\0") for n, d in BASE)),
        "gnu": good("members of GNU tar's format", b"".join(regular(d, n.encode(), magic=GNU) for n, d in BASE)),
        "v7": good("members of the oldest format", b"".join(regular(d, n.encode(), magic=NO_MAGIC) for n, d in BASE)),
        "size-binary": good(
            "sizes in binary", b"".join(head(n.encode(), binary(len(d)), magic=GNU) + pad(d) for n, d in BASE)
        ),
        "unknown-key": good("an unknown key in the header", archive([*header_pair(unnamed), *BASE[2:]])),
        "header-no-newline": good(
            "no newline at the end of the header", archive([*header_pair(header()[:-1]), *BASE[2:]])
        ),
        "header-crlf": good(
            "CR LF in the header", archive([*header_pair(header().replace(b"\n", b"\r\n")), *BASE[2:]]), **shown
        ),
    }


def members() -> dict[str, Vector]:
    """Members that are no plain files, or have hostile names or sizes, before the middle chunk."""
    front, back = b"".join(blocks(BASE[:4])), b"".join(blocks(BASE[4:])) + END

    def hidden(about: str, raw: bytes, verdict: str, out: int = 256) -> Vector:
        return bad(about, front + raw + back, verdict, out)

    name = b"vm1/x.000.enc"
    kinds = {
        "hard-link": (b"1", "a hard link"),
        "symlink": (b"2", "a symbolic link"),
        "character": (b"3", "a character device"),
        "block": (b"4", "a block device"),
        "directory": (b"5", "a directory"),
        "fifo": (b"6", "a fifo"),
        "pax-global": (b"g", "a pax global header"),
        "contiguous": (b"7", "of an unknown type"),
        "gnu-long-name": (b"L", "of an unknown type"),
        "gnu-long-link": (b"K", "of an unknown type"),
        "gnu-sparse": (b"S", "of an unknown type"),
        "gnu-volume": (b"V", "of an unknown type"),
        "gnu-continued": (b"M", "of an unknown type"),
        "gnu-directory": (b"D", "of an unknown type"),
        "solaris-pax": (b"X", "of an unknown type"),
        "odd": (b"\xff", "of an unknown type"),
    }
    vectors = {
        f"type-{key}": hidden(
            f"a member that is {text}", head(name, 0, kind), f"4 {name.decode()} is {text}, not a regular"
        )
        for key, (kind, text) in kinds.items()
    }
    middle = SEALED[1].encode()
    vectors["type-chunk-symlink"] = bad(
        "the chunk itself is a symbolic link",
        front + head(middle, 384, b"2") + pad(BODIES[SEALED[1]]) + b"".join(blocks(BASE[5:])) + END,
        f"4 {SEALED[1]} is a symbolic link, not a regular file",
        256,
    )
    names = {
        "absolute": b"/etc/passwd",
        "up": b"../x.000.enc",
        "up-inside": b"vm1/../x.000.enc",
        "up-last": b"vm1/..",
        "dot": b"./vm1/x.000.enc",
        "dot-inside": b"vm1/./x.000.enc",
        "slash": b"vm1/",
        "double-slash": b"vm1//x.000.enc",
        "empty": b"",
        "dash": b"-vm1/x.000.enc",
        "space": b"vm1/x y.000.enc",
        "newline": b"vm1/x\n.000.enc",
        "escape": b"vm1/\x1b[2Jx.000.enc",
        "not-ascii": b"vm1/\xc3\xbc.000.enc",
        "backslash": b"vm1\\x.000.enc",
        "shell": b"vm1/$(id).000.enc",
    }
    for key, text in names.items():
        shown = text.decode("ascii", "backslashreplace").replace("\n", "\\n").replace("\x1b", "\\x1b")
        vectors[f"name-{key}"] = hidden("a hostile name", head(text, 128) + bytes(512), f"4 {shown}: {PATH}")
        if text:
            raw = pax(("path", text.decode("utf-8"))) + head(name, 128) + bytes(512)
            vectors[f"pax-name-{key}"] = hidden("a hostile name in a pax header", raw, f"4 {shown}: {PATH}")
    long = pax(("path", "a/" * 129)) + head(name, 128) + bytes(512)
    vectors["pax-name-long"] = hidden("a long name in a pax header", long, "4 " + "a/" * 128 + ": the name is too long")
    return vectors | sizes(hidden, name)


def sizes(hidden, name: bytes) -> dict[str, Vector]:  # type: ignore[no-untyped-def]
    shown = name.decode()
    texts = {"negative": "-1", "word": "many", "empty": "", "plus": "+1", "hex": "0x80", "long": "1" * 20}
    vectors = {
        f"pax-size-{key}": hidden(
            "a malformed size in a pax header",
            pax(("size", text)) + head(name),
            f"4 {shown}: malformed size in its pax",
        )
        for key, text in texts.items()
    }
    huge = (1 << 63) - 1
    sealed = 8**11 - 1
    return vectors | {
        "pax-size-huge": hidden(
            "2^63-1 bytes in a pax header", pax(("size", huge)) + head(name), f"4 {shown} is too long: {huge}"
        ),
        "pax-size-bound": hidden(
            "a byte above the bound in a pax header", pax(("size", 385)) + head(name), f"4 {shown} is too long: 385"
        ),
        "pax-too-long": hidden(
            "a pax header of 64 KiB and a byte", head(b"x", 65537, b"x"), "4 a pax header of 65537 bytes is too long"
        ),
        "pax-malformed": hidden("no records in a pax header", extended(b"hello"), "4 a pax record has no length"),
        "pax-record-long": hidden(
            "a record beyond the pax header", extended(b"99 path=a\n"), "4 a pax record is malformed"
        ),
        "pax-twice": hidden(
            "a pax header for a pax header",
            pax(("path", "a")) * 2 + head(name),
            "4 a is of an unknown type, not a regular file",
        ),
        "pax-alone": hidden("a pax header before a zero block", pax(("path", "a")) + bytes(512), NUMBER),
        "size-bound": hidden("a byte above the bound", head(name, 385), f"4 {shown} is too long: 385 bytes"),
        "size-octal": hidden("the largest octal size", head(name, sealed), f"4 {shown} is too long: {sealed} bytes"),
        "size-binary-huge": hidden(
            "2^63-1 bytes in binary", head(name, binary(huge), magic=GNU), f"4 {shown} is too long: {huge}"
        ),
        "size-binary-large": hidden(
            "2^63 bytes in binary", head(name, binary(1 << 63), magic=GNU), "4 a number in a tar header is too large"
        ),
        "size-negative": hidden("-1 in binary", head(name, b"\xff" * 12, magic=GNU), NUMBER),
        "size-word": hidden("a size that is not a number", head(name, b"many".ljust(12)), NUMBER),
        "tar-checksum": hidden("a wrong checksum", head(name, off=1), TAR_SUM),
        "tar-magic": hidden(
            "an unknown kind of tar", head(name, magic=b"ustar\x0001"), "4 a tar header is of an unknown kind"
        ),
        "tar-prefix": hidden("a hostile prefix", head(name, more=b"../.."), f"4 ../../{shown}: {PATH}"),
        "tar-garbage": hidden("a block of something else", content("garbage", 512), NUMBER),
        "swallow": looked_into(
            hidden("a member whose size covers the next one", head(f"{OTHER}.000.enc".encode(), 384), NUMBER),
            f"4 {OTHER}.000.enc {NO_CONTAINER}",
        ),
    }


def looked_into(vector: Vector, verdict: str) -> Vector:
    """The same where those that look into every chunk find it first."""
    said, data = vector
    return said | {"verify": verdict, "structure": verdict}, data


def paddings() -> dict[str, Vector]:
    """Something else than zeros between a body and the next header."""
    vectors = {}
    whole_archive = archive(BASE)
    places = {
        "header": (1, "backup-header", 0),
        "hmac": (2, HMAC, 0),
        "metadata": (3, "qubes.xml.000.enc", 0),
        "chunk": (4, SEALED[0], 256),
        "manifest": (9, LAST, 600),
    }
    for name, (at, member, out) in places.items():
        data = flipped(whole_archive, len(archive(BASE[:at], b"")) - 1)
        verdict = f"4 {member} is padded with something other than zeros"
        shown = verdict if at < 3 else "0"
        vectors[f"padding-{name}"] = bad("padding is not zeros", data, verdict, out, header=shown)
    end = flipped(whole_archive, -1)
    vectors["padding-end"] = bad("the end blocks are not zeros", end, FOLLOWS, 600)
    return vectors


def qubes() -> dict[str, Vector]:
    """As Qubes writes it: no chunk size and no manifest in the header, which has no newline at its end; pigz; each
    member an archive of its own, padded to 10,240 bytes."""
    text = header(chunk_size=None, manifest=False).replace(b"=gzip", b"=pigz")[:-1]
    pieces = [*header_pair(text), *FILES]

    def padded(pieces: Pieces) -> bytes:
        return b"".join(each + bytes(-len(each) % 10240) for each in blocks(pieces))

    def lacking(*names: str) -> bytes:
        return padded([piece for piece in pieces if piece[0] not in names])

    first, middle, last = SEALED
    metadata = f"4 {first} comes where qubes.xml.000.enc is due"
    swapped_bodies = dict(pieces) | {middle: BODIES[last], last: BODIES[middle]}
    big = [*pieces[:-1], chunk(OTHER, 1, content("big", 5000))]
    vectors = {
        "whole": good("what Qubes writes", padded(pieces)),
        "no-end": good("without padding", archive(pieces, b"")),
        "drop-first": bad("the first chunk is dropped", lacking(first), out_of_place(middle, first)),
        "drop-middle": bad("the middle chunk is dropped", lacking(middle), out_of_place(last, middle), 256),
        "drop-metadata": bad("the metadata is dropped", lacking("qubes.xml.000.enc"), metadata),
        "reorder": bad(
            "two chunks change places",
            padded([*pieces[:4], pieces[5], pieces[4], *pieces[6:]]),
            out_of_place(last, middle),
            256,
        ),
        "swap": bad(
            "the bodies of two chunks change places",
            padded([(name, swapped_bodies[name]) for name, _ in pieces]),
            not_authentic(middle),
            256,
            list="0",
            structure="0",
        ),
        "flip": bad(
            "a bit is flipped in a chunk",
            padded([(name, flipped(body, 200) if name == last else body) for name, body in pieces]),
            not_authentic(last),
            512,
            list="0",
            structure="0",
        ),
        "spliced": bad(
            "a chunk from another backup",
            padded([(name, dict(OTHER_BACKUP)[name] if name == middle else body) for name, body in pieces]),
            not_authentic(middle),
            256,
            list="0",
            structure="0",
        ),
        "fifo": bad(
            "a fifo",
            padded(pieces) + head(b"vm3/x.000.enc", kind=b"6"),
            "4 vm3/x.000.enc is a fifo, not a regular",
            600,
        ),
        "tail": bad(
            "text at the end", padded(pieces) + b"hello", "4 the archive ends in the middle of a tar header", 600
        ),
        "chunk-too-large": bad(
            "a chunk above --max-chunk",
            archive(big, b""),
            f"4 {EMPTY} is too long: 5128 bytes",
            600,
            options="--max-chunk 4999",
            structure="0",
        ),
        "chunk-large": good("a chunk of just --max-chunk", archive(big, b""), options="--max-chunk 5000"),
        # Where the format cannot tell, it warns; what is in the files must.
        "drop-last": good("the last chunk is dropped: nothing tells", lacking(last), stdout="512"),
        "drop-file": good("the last file is dropped: nothing tells", padded(pieces[:-2])),
    }
    return {f"qubes-{name}": (said | {"warning": UNSURE}, data) for name, (said, data) in vectors.items()}


def vectors() -> dict[str, Vector]:
    return accepted() | members() | paddings() | qubes()
