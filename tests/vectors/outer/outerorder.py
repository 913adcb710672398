"""Chunks, files and the manifest: cut, dropped, swapped, renamed, repeated, spliced."""

from __future__ import annotations

from outerbase import (
    ATTEMPT,
    BASE,
    BODIES,
    EARLY,
    EMPTY,
    FILES,
    FOLLOWS,
    HEADERS,
    HMAC,
    LAST,
    MANIFEST,
    NO_BACKUP,
    NO_BYTE,
    NO_HMAC,
    NO_MANIFEST,
    OTHER,
    OTHER_BACKUP,
    ROOT,
    ROOT_DATA,
    SEALED,
    bad,
    before,
    missing,
    named,
    not_authentic,
    other_than_listed,
    out_of_place,
    replaced,
    swapped,
    without,
)
from vectors.archivebytes import OTHER_ID, archive, chunk, file, manifest, manifest_text
from vectors.tarbytes import head, pax, regular
from vectors.vectorfile import Vector


def cuts() -> dict[str, Vector]:
    """Cut at each member's boundary and inside everything."""
    vectors = {}
    names = [name for name, _ in BASE]
    verdicts = {
        0: (NO_BYTE, 0),
        1: (NO_HMAC, 0),
        2: (NO_MANIFEST, 0),
        3: (NO_MANIFEST, 0),
        4: (f"4 {ROOT} is incomplete: its chunk 001 is missing", 256),
        5: (f"4 {ROOT} is incomplete: its chunk 002 is missing", 512),
        6: (NO_MANIFEST, 600),
        7: (f"4 {OTHER} is incomplete: its chunk 001 is missing", 600),
        8: (NO_MANIFEST, 600),
    }
    for at, (verdict, out) in verdicts.items():
        about = f"cut before {names[at]}"
        shown = verdict if at < 2 else "0"
        vectors[f"cut-before-{at}"] = bad(about, archive(BASE[:at], b""), verdict, out, header=shown)
        about = f"{about}, then the end blocks"
        verdict, shown = (verdict, shown) if at else (NO_BACKUP, NO_BACKUP)
        vectors[f"ended-before-{at}"] = bad(about, archive(BASE[:at]), verdict, out, header=shown)
    before_size = len(archive(BASE[:4], b""))  # in front of the middle chunk
    places = {"tar-header": 100, "salt": 512 + 20, "hmac": 512 + 70, "data": 512 + 200, "mac": 512 + 384 - 10}
    for name, size in places.items():
        verdict = "4 the archive ends in the middle of a tar header" if size < 512 else f"{EARLY} {SEALED[1]}"
        vectors[f"cut-in-{name}"] = bad(
            f"cut inside {name} of a chunk", archive(BASE)[: before_size + size], verdict, 256
        )
    verdict = f"{EARLY} {SEALED[1]}"
    vectors["cut-in-padding"] = bad("cut inside padding", archive(BASE)[: before_size + 1000], verdict, 512)
    verdict = f"{EARLY} {LAST}"
    end = len(archive(BASE, b""))
    vectors["cut-in-manifest"] = bad("cut inside the manifest", archive(BASE)[: end - 300], verdict, 600)
    vectors["cut-in-manifest-padding"] = bad(
        "cut inside the manifest's padding", archive(BASE)[: end - 1], verdict, 600
    )
    for name, size, verdict in (
        ("header", 530, f"{EARLY} backup-header"),
        ("header-padding", 1000, f"{EARLY} backup-header"),
        ("header-hmac", 1024 + 600, f"{EARLY} {HMAC}"),
    ):
        vectors[f"cut-in-{name}"] = bad(f"cut inside the {name}", archive(BASE)[:size], verdict, header=verdict)
    return vectors


def chunks() -> dict[str, Vector]:
    """Chunks dropped, swapped, renamed, repeated, and spliced in from elsewhere."""
    first, middle, last = SEALED
    vectors = {
        "drop-first": bad("the first chunk is dropped", archive(without(first)), out_of_place(middle, first)),
        "drop-middle": bad("the middle chunk is dropped", archive(without(middle)), out_of_place(last, middle), 256),
        "drop-last": bad(
            "the last chunk is dropped",
            archive(without(last)),
            f"4 {ROOT} is incomplete: its chunk 002 is missing",
            512,
            structure="0",
            warning=f"{ROOT} is incomplete: it failed when it was saved, or chunks are missing",
        ),
        "drop-two": bad(
            "all chunks but the first are dropped",
            archive(without(middle, last)),
            f"4 {ROOT} is incomplete: its chunk 001 is missing",
            256,
            structure="0",
            warning=f"{ROOT} is incomplete: it failed when it was saved, or chunks are missing",
        ),
        "drop-empty": bad(
            "the empty last chunk of the last file is dropped",
            archive(without(EMPTY)),
            f"4 {OTHER} is incomplete: its chunk 001 is missing",
            600,
            structure="0",
            warning=f"{OTHER} is incomplete: it failed when it was saved, or chunks are missing",
        ),
    }
    parts = dict(zip(SEALED, (256, 512, 600), strict=True))
    for name, one, two in (("first", first, middle), ("last", middle, last), ("ends", first, last)):
        pieces = [named(BASE, {one: two, two: one}.get(each, each)) for each, _ in BASE]
        due = out_of_place(two, one)
        vectors[f"reorder-{name}"] = bad("two chunks change places", archive(pieces), due, 0 if one == first else 256)
    swap = bad("the bodies of two chunks change places", archive(swapped(first, middle)), not_authentic(first))
    vectors["swap"] = (swap[0] | {"list": other_than_listed(ROOT), "structure": "0"}, swap[1])
    across = archive(swapped(first, f"{OTHER}.000.enc"))
    vectors["swap-files"] = bad(
        "the first chunks of two files change places",
        across,
        not_authentic(first),
        list=other_than_listed(ROOT),
        structure="0",
    )
    for at, (member, out) in enumerate(parts.items()):
        pieces = before(member, named(BASE, member))
        due = out_of_place(member, (SEALED[at + 1]) if at < 2 else "")
        if at == 2:
            due = f"4 {member} comes after the last chunk of its file"
        vectors[f"repeat-{at}"] = bad("a chunk occurs twice", archive(pieces), due, out)
    again = archive(before(LAST, named(BASE, first)))
    twice = f"4 {first}: the file occurs twice"
    vectors["repeat-later"] = bad("the first chunk comes again at the end", again, twice, 600)
    return vectors


def splices() -> dict[str, Vector]:
    """Chunks of the same passphrase from elsewhere, in the place of the middle one."""
    member = SEALED[1]
    same = {"list": other_than_listed(ROOT), "structure": "0"}
    where = {
        "other-backup": ("from another backup of the same passphrase", dict(OTHER_BACKUP)[member]),
        "other-place": ("another chunk of the same file", BODIES[SEALED[0]]),
        "other-machine": ("from another machine of the same backup", BODIES[f"{OTHER}.000.enc"]),
        "other-file": ("from another file of the machine", chunk("vm1/private.img", 1, ROOT_DATA[256:512])[1]),
        "metadata": ("the metadata", BODIES["qubes.xml.000.enc"]),
    }
    vectors = {}
    for name, (about, body) in where.items():
        changes = same
        if len(body) < 384:
            short = f"4 {SEALED[2]} comes after the last chunk of its file"
            changes = {"list": short, "structure": short}
        vectors[f"splice-{name}"] = bad(about, archive(replaced(member, body)), not_authentic(member), 256, **changes)
    # What was sealed under the same ID, name and number is authentic: the manifest has the last word.
    mixed = other_than_listed(ROOT)
    data = archive(replaced(member, dict(ATTEMPT)[member]))
    about = "from another attempt under the same ID, with other salts"
    vectors["splice-attempt"] = bad(about, data, mixed, 600, structure="0")
    header_swap = archive(OTHER_BACKUP[:2] + BASE[2:])
    first = "qubes.xml.000.enc"
    vectors["splice-header"] = bad(
        "the header of another backup of the same passphrase",
        header_swap,
        not_authentic(first),
        read=not_authentic(SEALED[0]),
        list=not_authentic(LAST),
        structure="0",
    )
    return vectors


def renames() -> dict[str, Vector]:
    first, middle, _last = SEALED
    exchange = {"vm1": "vm2", "vm2": "vm1"}
    moved = [(exchange.get(name[:3], name[:3]) + name[3:], body) for name, body in BASE]
    other = [("vm1/data.img" + name[12:] if name.startswith(ROOT) else name, body) for name, body in BASE]
    gap = [(f"{ROOT}.003.enc" if name == SEALED[2] else name, body) for name, body in BASE]
    start = [(f"{ROOT}.{int(name[-7:-4]) + 1:03d}.enc" if name.startswith(ROOT) else name, body) for name, body in BASE]
    vectors = {
        "rename-file": bad(
            "a file is renamed",
            archive(other),
            not_authentic("vm1/data.img.000.enc"),
            read=missing(ROOT),
            list=missing(ROOT),
            structure="0",
        ),
        "rename-domains": bad(
            "two domains exchange their names",
            archive(moved),
            not_authentic("vm2/root.img.000.enc"),
            read=not_authentic(first),
            list="4 vm2/root.img comes where vm1/root.img is due",
            structure="0",
        ),
        "rename-last": bad(
            "the last chunk is numbered on", archive(gap), out_of_place(f"{ROOT}.003.enc", SEALED[2]), 512
        ),
        "rename-from-1": bad("chunks are numbered from 1", archive(start), out_of_place(middle, first)),
    }
    names = {
        "two-digits": "vm1/root.img.01.enc",
        "four-digits": "vm1/root.img.0001.enc",
        "eight-digits": "vm1/root.img.10000000.enc",
        "no-number": "vm1/root.img.enc",
        "no-enc": "vm1/root.img.001",
        "upper-case": "vm1/root.img.001.ENC",
        "only-number": ".001.enc",
        "plain": "vm1/root.img",
    }
    for name, member in names.items():
        pieces = [(member if each == middle else each, body) for each, body in BASE]
        text = f"4 {member}: not the name of a chunk"
        vectors[f"rename-{name}"] = bad("no name for a chunk", archive(pieces), text, 256)
    reserved = [("backup-header.001.enc" if each == middle else each, body) for each, body in BASE]
    text = "4 backup-header.001.enc: a reserved name"
    vectors["rename-reserved"] = bad("a reserved name", archive(reserved), text, 256)
    long_names = {"base": "vm1/" + "b" * 89, "directory": "d" * 137 + "/d/b"}
    for name, text in long_names.items():
        data = archive(without(middle)[:3], b"") + pax(("path", f"{text}.000.enc")) + head(b"x", 128) + bytes(512)
        verdict = f"4 {text}.000.enc: longer than 138 bytes of directory and 88 of last component"
        vectors[f"long-{name}"] = bad("a name that ustar could not hold", data, verdict)
    return vectors


def files() -> dict[str, Vector]:
    """Whole files dropped, doubled, moved, added."""
    metadata, root, other = FILES[:1], FILES[1:4], FILES[4:]
    stranger = file("vm3/root.img", b"stranger")
    private = file("vm1/private.img", b"private")
    back = [*HEADERS, *metadata, *root, *other, *private]
    late = [*HEADERS, *root, *other, *metadata, manifest([*root, *other, *metadata])]
    not_listed = "4 vm3/root.img is not listed in the manifest"
    returns = "4 vm1/private.img.000.enc: the file comes back to the directory vm1 after another one"
    second = "4 qubes.xml.001.enc comes after the last chunk of its file"
    forged = [("vm1/root.img" + name[12:], body) for name, body in other]
    return {
        "drop-metadata": bad(
            "the metadata is dropped", archive(without("qubes.xml.000.enc")), missing("qubes.xml"), 600, structure="0"
        ),
        "drop-file": bad("a file is dropped", archive(without(*SEALED)), missing(ROOT), structure="0"),
        "drop-last-file": bad(
            "the last file is dropped",
            archive([*HEADERS, *metadata, *root, MANIFEST]),
            missing(OTHER),
            600,
            structure="0",
        ),
        "drop-all": bad("all files are dropped", archive([*HEADERS, MANIFEST]), missing("qubes.xml"), structure="0"),
        "add-file": bad(
            "a file of the same backup that the manifest does not list",
            archive(before(LAST, *stranger)),
            not_listed,
            600,
            structure="0",
        ),
        "reorder-files": bad(
            "two files change places",
            archive([*HEADERS, *metadata, *other, *root, MANIFEST]),
            f"4 {OTHER} comes where {ROOT} is due",
            600,
            structure="0",
        ),
        "double-file": bad(
            "a file occurs twice",
            archive([*HEADERS, *metadata, *root, *root, *other, MANIFEST]),
            f"4 {SEALED[0]} comes after the last chunk of its file",
            600,
        ),
        "double-file-later": bad(
            "a file comes again behind another one",
            archive([*HEADERS, *metadata, *root, *other, *root, MANIFEST]),
            f"4 {SEALED[0]}: the file occurs twice",
            600,
        ),
        "interleave": bad(
            "the chunks of two files are mixed",
            archive([*HEADERS, *metadata, root[0], other[0], root[1], other[1], root[2], MANIFEST]),
            f"4 {SEALED[1]}: the file occurs twice",
            256,
        ),
        "other-file": bad(
            "the file of another machine under the name of this one",
            archive([*HEADERS, *metadata, *forged, MANIFEST]),
            not_authentic(SEALED[0]),
            list=other_than_listed(ROOT),
            structure="0",
        ),
        "comes-back": bad("a domain comes back", archive([*back, manifest(back)]), returns, 600),
        "metadata-late": bad(
            "the metadata is not first", archive(late), "4 qubes.xml.000.enc: the file is not the first file", 600
        ),
        "metadata-two": bad(
            "the metadata has two chunks",
            archive(before(SEALED[0], chunk("qubes.xml", 1, b""))),
            second,
        ),
        "other-files": bad(
            "all files of another backup",
            archive([*HEADERS, *OTHER_BACKUP[2:]]),
            not_authentic("qubes.xml.000.enc"),
            read=not_authentic(SEALED[0]),
            list=not_authentic(LAST),
            structure="0",
        ),
        "other-attempt": bad(
            "a file of another attempt under the same ID",
            archive([*HEADERS, *metadata, *ATTEMPT[3:6], *other, MANIFEST]),
            other_than_listed(ROOT),
            600,
            structure="0",
        ),
    }


def manifests() -> dict[str, Vector]:
    """The manifest dropped, doubled, of another backup, in the wrong place, sealed with something wrong in it."""
    text = manifest_text(FILES)
    less = manifest([piece for piece in FILES if not piece[0].startswith(OTHER)])
    contents = {
        "id": (manifest_text(FILES, OTHER_ID), "4 the manifest belongs to another backup"),
        "empty": (b"", "4 the manifest does not begin as one of version 1 or 2"),
        "garbage": (b"\xff" * 100, "4 the manifest is not ASCII"),
        "version": (text.replace(b"manifest 1", b"manifest 2"), "4 the version of the manifest does not fit its lines"),
        "cut": (text[:-1], "4 the manifest does not end with the number of its files"),
        "bytes": (text.replace(b" 600 ", b" 601 "), other_than_listed(ROOT)),
        "chunks": (text.replace(b"file 3 ", b"file 2 "), other_than_listed(ROOT)),
        "order": (
            manifest_text([*FILES[:1], *FILES[4:], *FILES[1:4]]),
            f"4 {ROOT} comes where {OTHER} is due",
        ),
    }
    vectors = {
        f"manifest-{name}": bad(
            "a manifest that says something else",
            archive(replaced(LAST, chunk("qb-manifest", 0, data)[1])),
            verdict,
            600,
            structure="0",
        )
        for name, (data, verdict) in contents.items()
    }
    other = [*BASE[:-1], named(OTHER_BACKUP, LAST)]
    own = OTHER_BACKUP[2:-1]
    sealed_here = [*BASE[:-1], manifest(own)]
    middle = archive(before(f"{OTHER}.000.enc", MANIFEST))
    missing_other = missing(OTHER)
    beginning = archive([*HEADERS, MANIFEST, *FILES])
    second = archive([*BASE[:-1], ("qb-manifest.001.enc", MANIFEST[1])])
    return vectors | {
        "manifest-dropped": bad("no manifest, and the end blocks", archive(BASE[:-1]), NO_MANIFEST, 600),
        "manifest-twice": bad("the manifest twice", archive([*BASE, MANIFEST]), FOLLOWS, 600),
        "manifest-other": bad(
            "the manifest of another backup", archive(other), not_authentic(LAST), 600, structure="0"
        ),
        "manifest-other-macs": bad(
            "the manifest lists other MACs", archive(sealed_here), other_than_listed("qubes.xml"), 600, structure="0"
        ),
        "manifest-attempt": bad(
            "the manifest of another attempt under the same ID",
            archive([*BASE[:-1], ATTEMPT[-1]]),
            other_than_listed("qubes.xml"),
            600,
            structure="0",
        ),
        "manifest-less": bad(
            "the manifest lists a file less",
            archive([*BASE[:-1], less]),
            f"4 {OTHER} is not listed in the manifest",
            600,
            structure="0",
        ),
        "manifest-middle": bad("the manifest before the last file", middle, FOLLOWS, 600),
        "manifest-first": bad("the manifest before all files", beginning, FOLLOWS),
        "manifest-number": bad("the manifest is chunk 1", second, "4 qb-manifest.001.enc is too long: 455 bytes", 600),
        "manifest-empty-list": bad(
            "a manifest of no files",
            archive([*HEADERS, manifest([])]),
            "4 vm1/root.img is not in the archive",
            verify="0",
            list="0",
            structure="0",
        ),
        "manifest-missing-file": bad(
            "a manifest that promises more",
            archive([*HEADERS, *FILES[:4], MANIFEST]),
            missing_other,
            600,
            structure="0",
        ),
    }


def tails() -> dict[str, Vector]:
    """Bytes after the manifest."""
    data = archive(BASE)
    tails = {
        "byte": data + b"x",
        "byte-at-once": archive(BASE, b"x"),
        "far": data + bytes(9000) + b"\1",
        "text": data + b"\n",
        "member": archive(BASE, b"") + regular(b"", b"vm3/root.img.000.enc"),
        "member-behind-end": data + regular(b"", b"vm3/root.img.000.enc"),
        "archive": archive(BASE[:4]) * 0 + data + archive(HEADERS, b""),
    }
    return {f"tail-{name}": bad("something follows the manifest", data, FOLLOWS, 600) for name, data in tails.items()}


def vectors() -> dict[str, Vector]:
    return cuts() | chunks() | splices() | renames() | files() | manifests() | tails()
