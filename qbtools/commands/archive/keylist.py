"""qb-key list and check: show what wraps the passphrase of an archive and who has signed it, without opening it."""

from __future__ import annotations

import json
from typing import NamedTuple

from qbtools.commands.archive import writeroptions
from qbtools.commands.cli import Invocation
from qbtools.errors import Refused, UsageError, escape
from qbtools.formats import chunks, header, keymembers
from qbtools.formats.beginning import Beginning, header_bound, read_beginning
from qbtools.formats.containerhead import Parameters, parse_fixed
from qbtools.formats.outertar import MemberReader
from qbtools.keys import age, sshsig
from qbtools.streams import Reader

_WITH_TAG = ("ssh-ed25519", "ssh-rsa")  # the stanzas of SSH keys have a tag of the key; others name no recipient


class Recipient(NamedTuple):
    """A recipient of qb-key.age. tag: short, and made from an SSH key; None for other kinds."""

    kind: str
    tag: str | None


class Wraps(NamedTuple):
    """What wraps a passphrase. Nothing is authenticated.

    recipients: of age. stretched: the parameters of the member that a typed passphrase opens. command: the bytes of the
    member that a command made. direct: the parameters of the header's container if the passphrase itself is typed.
    signature: the fingerprint of the key that the signature names. base: the backup whose increments the archive holds.
    """

    recipients: list[Recipient]
    stretched: Parameters | None
    command: int | None
    direct: Parameters | None
    signature: str | None
    base: header.Base | None


def write(call: Invocation) -> None:
    """qb-key list."""
    out = call.stdout(binary=False)
    found = _look(_read(call.stdin()))
    if call.options["--json"]:
        out.write(_as_json(found))
        return
    call.say("nothing of this is authenticated")
    out.write("".join(f"{name}\t{text}\n" for name, text in _rows(found)).encode("ascii"))


def check(call: Invocation) -> None:
    """qb-key check."""
    if writeroptions.check(call) is None:
        raise UsageError("no list of signers given", "use --signers")
    reader = call.stdin()  # before the list is read, which must not be the archive
    writer = writeroptions.Writer(call)
    out = call.stdout(binary=False)
    found = _read(reader)
    if header.parse(found.untrusted_plain).version != 3 and keymembers.SIGNATURE not in found.untrusted_keys:
        raise Refused("the archive is not signed")
    if (signer := writer.check_signature(found)) is not None:
        out.write(f"{signer.fingerprint}\t{escape(signer.principal)}\n".encode("utf-8", "backslashreplace"))


def _read(reader: Reader) -> Beginning:
    reader.name = "the archive"
    found = read_beginning(MemberReader(reader, header_bound), chunks.DEFAULT_CHUNK_SIZE)
    if header.parse(found.untrusted_plain).version != 3:
        parse_fixed(found.untrusted_sealed, chunks.HEADER_MAC)
    return found


def _look(beginning: Beginning) -> Wraps:
    """Reads what wraps the passphrase. Damaged if a member is malformed."""
    untrusted_plain, untrusted_sealed, untrusted_keys = beginning
    untrusted = header.parse(untrusted_plain)
    blobs = [untrusted_keys.get(name) for name in (keymembers.AGE, keymembers.STRETCHED, keymembers.COMMAND)]
    direct = None
    if untrusted.version != 3 and not untrusted.key:
        direct = parse_fixed(untrusted_sealed, chunks.HEADER_MAC)[0]
    return Wraps(
        [] if blobs[0] is None else [_recipient(*stanza) for stanza in age.stanzas(blobs[0])],
        None if blobs[1] is None else parse_fixed(blobs[1], keymembers.STRETCHED)[0],
        None if blobs[2] is None else len(blobs[2]),
        direct,
        sshsig.fingerprint(untrusted_keys[keymembers.SIGNATURE]) if untrusted.signed else None,
        untrusted.base,
    )


def _recipient(kind: str, words: list[str]) -> Recipient:
    return Recipient(kind, words[0] if kind in _WITH_TAG and words else None)


def _rows(found: Wraps) -> list[tuple[str, str]]:
    rows = [(keymembers.AGE, f"{kind} {tag}" if tag else kind) for kind, tag in found.recipients]
    if found.stretched is not None:
        rows.append((keymembers.STRETCHED, _cost(found.stretched)))
    if found.command is not None:
        rows.append((keymembers.COMMAND, f"{found.command} bytes"))
    if not rows:
        rows.append(("passphrase", _cost(found.direct) if found.direct is not None else "version 3"))
    if found.signature is not None:
        rows.append((keymembers.SIGNATURE, found.signature))
    if found.base is not None:
        rows.append(("base", found.base.backup_id))
    return rows


def _cost(parameters: Parameters) -> str:
    return f"logN {parameters.log_n}, r {parameters.r}, p {parameters.p}"


def _as_json(found: Wraps) -> bytes:
    def cost(parameters: Parameters | None) -> dict[str, int] | None:
        return None if parameters is None else {"logn": parameters.log_n, "r": parameters.r, "p": parameters.p}

    document = {
        "authenticated": False,
        "age": [recipient._asdict() for recipient in found.recipients],
        "scrypt": cost(found.stretched),
        "command": None if found.command is None else {"bytes": found.command},
        "passphrase": cost(found.direct),
        "signature": None if found.signature is None else {"fingerprint": found.signature},
        "base": None if found.base is None else found.base._asdict(),
    }
    return json.dumps(document, indent=2).encode("ascii") + b"\n"
