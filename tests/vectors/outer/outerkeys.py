"""Wrapped passphrases and signatures: what stands between the header and the first chunk.

The passphrase of the tests opens the header itself, whatever else wraps it. So what a member holds does not matter
here: only which are there, in which order, and how large.
"""

from __future__ import annotations

from outerbase import BASE, CHANGED, HMAC, bad, good
from vectors.archivebytes import Piece, Pieces, archive, blocks, content, header, header_pair
from vectors.tarbytes import END, head
from vectors.vectorfile import Vector

AGE, STRETCHED, COMMAND, SIGNATURE = "qb-key.age", "qb-key.scrypt", "qb-key.command", "qb-signature"
BOUNDS = {AGE: 65536, STRETCHED: 4096, COMMAND: 65536, SIGNATURE: 65536}
KEY, SIGNED = "key=True\n", "signed=ssh\n"
REST = BASE[2:]


def member(name: str, size: int = 100) -> Piece:
    return name, content(name, size)


def with_keys(promise: str, *names: str) -> Pieces:
    return [*header_pair(header(more=promise)), *(member(name) for name in names), *REST]


def accepted() -> dict[str, Vector]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {
        "age": (KEY, (AGE,)),
        "stretched": (KEY, (STRETCHED,)),
        "command": (KEY, (COMMAND,)),
        "all": (KEY + SIGNED, tuple(BOUNDS)),
        "signed": (SIGNED, (SIGNATURE,)),
        "none": ("key=False\n", ()),
    }
    vectors = {
        f"keys-{name}": good("members behind the header", archive(with_keys(promise, *names)))
        for name, (promise, names) in found.items()
    }
    for name, bound in BOUNDS.items():
        promise = SIGNED if name == SIGNATURE else KEY
        pieces = [*header_pair(header(more=promise)), member(name, bound), *REST]
        vectors[f"keys-largest-{name}"] = good("as large as it may be", archive(pieces))
    return vectors


def refused() -> dict[str, Vector]:
    no_key = "4 the archive has no wrapped passphrase, but its header promises one"
    no_signature = "4 the archive has no signature, but its header promises one"
    extra = "4 qb-key.age is in the archive, but its header promises no wrapped passphrase"
    unsigned = f"4 {SIGNATURE} is in the archive, but its header promises no signature"
    found: dict[str, tuple[str, tuple[str, ...], str, str]] = {
        "dropped": (KEY, (), no_key, no_key),
        "only-signature": (KEY + SIGNED, (SIGNATURE,), no_key, no_key),
        "signature-dropped": (KEY + SIGNED, (AGE,), no_signature, no_signature),
        "signature-dropped-alone": (SIGNED, (), no_signature, no_signature),
        "not-promised": ("", (AGE,), extra, "0"),
        "said-to-be-none": ("key=no\n", (AGE,), extra, "0"),
        "signature-not-promised": (KEY, (AGE, SIGNATURE), unsigned, unsigned),
        "signature-not-promised-alone": ("", (SIGNATURE,), unsigned, "0"),
    }
    for name in BOUNDS:
        promise = SIGNED if name == SIGNATURE else KEY
        text = f"4 {name} occurs twice"
        found[f"twice-{name}"] = promise, (name, name), text, text
    names = list(BOUNDS)
    for first in range(len(names)):
        for second in range(first):
            text = f"4 {names[second]} comes after {names[first]}: it is out of place"
            found[f"order-{names[first]}-{names[second]}"] = KEY + SIGNED, (names[first], names[second]), text, text
    return {
        f"keys-{name}": bad("members behind the header", archive(with_keys(promise, *members)), verdict, header=shown)
        for name, (promise, members, verdict, shown) in found.items()
    }


def misplaced() -> dict[str, Vector]:
    pair = header_pair(header(more=KEY))
    key = member(AGE)
    no_hmac = f"4 not a backup: {HMAC} is not where it must be"
    no_pair = "4 not a backup: backup-header is not where it must be"
    stray = f"4 {AGE}: not the name of a chunk"
    found: dict[str, tuple[Pieces, str, int, str]] = {
        "first": ([key, *pair, *REST], no_pair, 0, no_pair),
        "in-pair": ([pair[0], key, pair[1], *REST], no_hmac, 0, no_hmac),
        "behind-metadata": ([*pair, key, REST[0], key, *REST[1:]], stray, 0, "0"),
        "between-chunks": ([*pair, key, *REST[:2], key, *REST[2:]], stray, 256, "0"),
        "before-manifest": ([*pair, key, *REST[:-1], key, REST[-1]], stray, 600, "0"),
        "behind-manifest": ([*pair, key, *REST, key], "4 something follows the end of the archive", 600, "0"),
    }
    vectors = {
        f"keys-{name}": bad("a key member elsewhere", archive(pieces), verdict, out, header=shown)
        for name, (pieces, verdict, out, shown) in found.items()
    }
    for name in ("qb-key.gpg", "qb-key", "qb-key.age.000", "QB-KEY.AGE", "qb-signature.000"):
        verdict = f"4 {name}: not the name of a chunk"
        pieces = [*pair, key, member(name), *REST]
        vectors[f"keys-unknown-{name}"] = bad("a member of another name", archive(pieces), verdict, header="0")
    return vectors


def sizes() -> dict[str, Vector]:
    vectors = {}
    for name, bound in BOUNDS.items():
        pair = header_pair(header(more=SIGNED if name == SIGNATURE else KEY))
        for size in (bound + 1, 1 << 30):
            raw = b"".join(blocks(pair)) + head(name.encode(), size) + bytes(1024)
            verdict = f"4 {name} is too long: {size} bytes"
            vectors[f"keys-size-{name}-{size}"] = bad("larger than its bound", raw, verdict, header=verdict)
    both = b"".join(blocks([*header_pair(header(more=KEY + SIGNED)), member(AGE)]))
    verdict = f"4 {SIGNATURE} is too long: {1 << 30} bytes"
    raw = both + head(SIGNATURE.encode(), 1 << 30) + bytes(1024)
    vectors["keys-size-behind-another"] = bad("larger than its bound", raw, verdict, header=verdict)
    verdict = "4 the archive ends in the middle of a tar header"
    raw = both + head(SIGNATURE.encode(), 10)[:-1]
    vectors["keys-cut-header"] = bad("the archive ends before the signature", raw, verdict, header=verdict)
    pair = header_pair(header(more=KEY))
    cut = b"".join(blocks([*pair, member(AGE)]))[:-450]
    verdict = f"4 the archive ends in the middle of {AGE}"
    vectors["keys-cut"] = bad("the archive ends in a key member", cut, verdict, header=verdict)
    raw = b"".join(blocks(pair)) + head(AGE.encode(), 0, b"2") + b"".join(blocks(REST)) + END
    verdict = f"4 {AGE} is a symbolic link, not a regular file"
    vectors["keys-link"] = bad("a key member that is a link", raw, verdict, header=verdict)
    return vectors


def edited() -> dict[str, Vector]:
    """The plain header says something else than its sealed copy."""
    key, plain = header(more=KEY), header()
    changed = {"header": CHANGED, "structure": f"4 {HMAC} does not have the size of what it seals"}
    stripped = [("backup-header", plain), header_pair(key)[1]]
    added = [("backup-header", key), header_pair(plain)[1], member(AGE)]
    same_size = [("backup-header", header(more="yek=True\n")), header_pair(key)[1]]
    extra = f"4 {AGE} is in the archive, but its header promises no wrapped passphrase"
    return {
        "keys-stripped": bad("key=True and the member are gone", archive([*stripped, *REST]), CHANGED, **changed),
        "keys-stripped-header": bad(
            "key=True is gone", archive([*stripped, member(AGE), *REST]), extra, header=CHANGED
        ),
        "keys-added": bad("a key member was added", archive([*added, *REST]), CHANGED, **changed),
        "keys-renamed": bad(
            "another word, as long", archive([*same_size, *REST]), CHANGED, header=CHANGED, structure="0"
        ),
    }


def vectors() -> dict[str, Vector]:

    return accepted() | refused() | misplaced() | sizes() | edited()
