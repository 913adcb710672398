"""Faults inside containers, and what a container may cost."""

from __future__ import annotations

from outerbase import (
    BASE,
    BODIES,
    CHECKSUM,
    EMPTY,
    HMAC,
    LAST,
    NO_CONTAINER,
    OTHER,
    ROOT,
    ROOT_DATA,
    SEALED,
    WRONG,
    bad,
    flipped,
    good,
    not_authentic,
    other_than_listed,
    replaced,
)
from vectors.archivebytes import CHUNK, ID, archive, container, header, header_pair, hostile, refixed
from vectors.vectorfile import Vector


def containers() -> dict[str, Vector]:
    """One bit flipped in each region of a container; what can be put right without the key is not enough."""
    vectors = {}
    regions = {
        "magic": (0, NO_CONTAINER),
        "version": (6, "is an scrypt container of unknown version 1"),
        "log-n": (7, CHECKSUM),
        "r": (11, CHECKSUM),
        "p": (15, CHECKSUM),
        "salt": (16, CHECKSUM),
        "checksum": (63, CHECKSUM),
        "hmac": (64, ""),
        "body": (96, ""),
        "mac": (-1, ""),
    }
    for region, (at, text) in regions.items():
        about = f"a bit of the container is flipped: {region}"
        for word, member, out in (("first", SEALED[0], 0), ("middle", SEALED[1], 256), ("last", SEALED[2], 512)):
            data = archive(replaced(member, flipped(BODIES[member], at)))
            verdict = f"4 {member} {text}" if text else not_authentic(member)
            listed = other_than_listed(ROOT) if region == "mac" else "0"
            vectors[f"flip-{word}-{region}"] = bad(
                about, data, verdict, out, list=listed, structure=verdict if text else "0"
            )
        data = archive(replaced(LAST, flipped(BODIES[LAST], at)))
        verdict = f"4 {LAST} {text}" if text else not_authentic(LAST)
        vectors[f"flip-manifest-{region}"] = bad(about, data, verdict, 600, structure=verdict if text else "0")
        data = archive(replaced(HMAC, flipped(BODIES[HMAC], at)))
        verdict = f"4 {HMAC} {text}" if text else f"4 {HMAC}: the content does not authenticate"
        if region == "hmac":
            verdict = WRONG
        vectors[f"flip-header-{region}"] = bad(about, data, verdict, header=verdict, structure=verdict if text else "0")
        if region != "body":
            data = archive(replaced(EMPTY, flipped(BODIES[EMPTY], at)))
            verdict = f"4 {EMPTY} {text}" if text else not_authentic(EMPTY)
            listed = other_than_listed(OTHER) if region == "mac" else "0"
            vectors[f"flip-empty-{region}"] = bad(
                about, data, verdict, 600, read=listed, list=listed, structure=verdict if text else "0"
            )
    return vectors


def rebuilt() -> dict[str, Vector]:
    """Changed, with the plain checksum made right; and containers of the attacker's own."""
    vectors = {}
    changes = {"log-n": (7, b"\x0b"), "r": (8, b"\0\0\0\4"), "p": (12, b"\0\0\0\2"), "salt": (16, b"x")}
    for name, (at, new) in changes.items():
        about = "a field of the container is changed and its plain checksum made right: " + name
        data = archive(replaced(SEALED[1], refixed(BODIES[SEALED[1]], at, new)))
        vectors[f"refixed-{name}"] = bad(about, data, not_authentic(SEALED[1]), 256, list="0", structure="0")
        data = archive(replaced(HMAC, refixed(BODIES[HMAC], at, new)))
        vectors[f"refixed-header-{name}"] = bad(about, data, WRONG, structure="0", header=WRONG)
    version = f"4 {SEALED[1]} is an scrypt container of unknown version 1"
    data = archive(replaced(SEALED[1], refixed(BODIES[SEALED[1]], 6, b"\1")))
    vectors["refixed-version"] = bad("a container of another version", data, version, 256, list="0")
    secret = f"{ID}!{ROOT}.001!guess".encode()
    forged = archive(replaced(SEALED[1], container(secret, ROOT_DATA[256:512])))
    attacker = archive(header_pair(header(), b"guess") + BASE[2:])
    body = BODIES[SEALED[1]]
    mac = {"list": other_than_listed(ROOT), "structure": "0"}
    return vectors | {
        "forged": bad("a chunk that another passphrase sealed", forged, not_authentic(SEALED[1]), 256, **mac),
        "forged-header": bad("a header that another passphrase sealed", attacker, WRONG, structure="0", header=WRONG),
        "longer": bad(
            "a byte behind the MAC of the last chunk",
            archive(replaced(SEALED[2], BODIES[SEALED[2]] + b"x")),
            not_authentic(SEALED[2]),
            512,
            **mac,
        ),
        "shorter": bad(
            "the last byte of the last chunk is gone",
            archive(replaced(SEALED[2], BODIES[SEALED[2]][:-1])),
            not_authentic(SEALED[2]),
            512,
            **mac,
        ),
        "one-too-long": bad(
            "a byte more than a full chunk",
            archive(replaced(SEALED[1], body[:-32] + b"x" + body[-32:])),
            f"4 {SEALED[1]} is too long: 385 bytes",
            256,
        ),
        "one-too-short": bad(
            "a byte is taken out of a full chunk",
            archive(replaced(SEALED[1], body[:200] + body[201:])),
            not_authentic(SEALED[1]),
            256,
            list=f"4 {SEALED[2]} comes after the last chunk of its file",
            structure=f"4 {SEALED[2]} comes after the last chunk of its file",
        ),
        "no-mac": bad(
            "a chunk of a header alone",
            archive(replaced(SEALED[2], BODIES[SEALED[2]][:127])),
            f"4 {SEALED[2]} is too short for a sealed chunk",
            512,
        ),
        "nothing": bad(
            "a chunk of no bytes",
            archive(replaced(SEALED[2], b"")),
            f"4 {SEALED[2]} is too short for a sealed chunk",
            512,
        ),
        "plain": bad(
            "a chunk that is not sealed",
            archive(replaced(SEALED[2], ROOT_DATA[:128])),
            f"4 {SEALED[2]} {NO_CONTAINER}",
            512,
            list=other_than_listed(ROOT),
        ),
    }


def costs() -> dict[str, Vector]:
    """Key derivation that would cost too much, in a header, a chunk and the manifest; and the limits' exact bounds."""
    vectors = {}
    bounds = "has key derivation parameters out of bounds"
    hostiles = {
        "log-n-0": ((0, 8, 1), bounds),
        "log-n-9": ((9, 8, 1), bounds),
        "log-n-41": ((41, 8, 1), bounds),
        "log-n-255": ((255, 8, 1), bounds),
        "r-0": ((10, 0, 1), bounds),
        "p-0": ((10, 8, 0), bounds),
        "r-p": ((10, 1 << 15, 1 << 15), bounds),
        "r-p-overflow": ((10, 1 << 31, 1 << 31), bounds),
        "log-n-40": ((40, 8, 1), "N=2^40, r=8, p=1"),
        "log-n-31": ((31, 1, 1), "N=2^31, r=1, p=1"),
        "p-32768": ((14, 8, 32768), "N=2^14, r=8, p=32768"),
        "r": ((10, (1 << 30) - 1, 1), f"N=2^10, r={(1 << 30) - 1}, p=1"),
        "work": ((17, 8, 65), "N=2^17, r=8, p=65"),
    }
    for name, (parameters, text) in hostiles.items():
        about = f"key derivation with (log N, r, p) = {parameters}"
        for where, member, out in (("header", HMAC, 0), ("chunk", SEALED[1], 256), ("manifest", LAST, 600)):
            if text == bounds:
                verdict = f"4 {member} {bounds}"
                structure = verdict
            else:
                verdict, structure = f"5 a key derivation of {text} is beyond the limit", "0"
            data = archive(replaced(member, hostile(*parameters, size=len(BODIES[member]) - 128)))
            listed = other_than_listed(ROOT) if where == "chunk" else verdict
            vectors[f"cost-{where}-{name}"] = bad(
                about,
                data,
                verdict,
                out,
                list=listed,
                structure=structure,
                header=verdict if where == "header" else "0",
            )
    mebibyte = "5 1 MiB of memory are needed for one chunk, the limit is 1 MiB"
    gibibyte = "5 1024 MiB of memory are needed for one chunk, the limit is 64 MiB"
    data = archive(replaced(SEALED[1], hostile(20, size=CHUNK)))
    listed = other_than_listed(ROOT)
    beyond = "5 a key derivation of N=2^10, r=8, p=1 is beyond the limit"
    return vectors | {
        "max-work": good("just the work that is allowed", archive(BASE), options="--max-work 13"),
        "max-work-less": bad(
            "more work than allowed", archive(BASE), beyond, options="--max-work 12", structure="0", header=beyond
        ),
        "max-memory": good("just enough memory", archive(BASE), options="--max-memory 1052000"),
        "max-memory-less": bad(
            "more memory than allowed",
            archive(BASE),
            mebibyte,
            options="--max-memory 1M",
            structure="0",
            header=mebibyte,
        ),
        "max-memory-chunk": bad(
            "one chunk needs more memory than allowed",
            data,
            gibibyte,
            256,
            options="--max-memory 64M",
            list=listed,
            structure="0",
        ),
    }


def vectors() -> dict[str, Vector]:
    return containers() | rebuilt() | costs()
