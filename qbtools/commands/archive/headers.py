"""qb-header write and qb-header read."""

from __future__ import annotations

import json
import time

from qbtools import descriptors
from qbtools.commands.archive import keyoptions, openoptions, sealoptions, signoptions
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError, naming
from qbtools.formats import header
from qbtools.formats.header import BackupHeader
from qbtools.formats.sealer import Settings, beginning


def write(call: Invocation) -> None:
    """qb-header write. A passphrase that is made here needs --secret-fd: the chunks are sealed with it elsewhere."""
    opts = call.options
    made = keyoptions.makes_passphrase(call)
    if made and opts["--secret-fd"] is None:
        raise UsageError("a passphrase is made, but --secret-fd is not given", "qb-seal and qb-manifest need it too")
    if not made and opts["--secret-fd"] is not None:
        hint = "use -r, -R, --key-command or --wrap-passphrase"
        raise UsageError("--secret-fd needs an option that makes a passphrase", hint)
    backup_id = sealoptions.backup_id(call) or ""
    manifest, signed = not opts["--no-manifest"], signoptions.signs(call)
    backup = sealoptions.backup_header(call, backup_id, manifest, key=made, signed=signed)
    settings = Settings(backup_id, sealoptions.chunk_size(call), sealoptions.parameters(call, made), int(time.time()))
    out = call.stdout()
    taker = call.number("--secret-fd", 3, 999999999) if made else -1
    secret, wrap, _memory = keyoptions.secret(call, made)
    call.note(f"backup ID {backup_id}, chunks of {settings.chunk_size} bytes")
    data = beginning(secret, backup, settings, wrap(), signoptions.signer(call, backup_id))
    if made:
        with naming(f"write the passphrase to descriptor {taker}"):
            descriptors.write_fd(taker, secret + b"\n")
    out.write(data)


def read(call: Invocation) -> None:
    """qb-header read."""
    demanded = openoptions.terms(call)
    reader = call.input(call.options["FILE"])
    out = call.stdout(binary=False)
    _secret, found = openoptions.open_header(call, demanded, reader)
    out.write(_as_json(found) if call.options["--json"] else header.serialise(found))


def _as_json(found: BackupHeader) -> bytes:
    document = {
        "version": found.version,
        "backup_id": found.backup_id or None,
        "compression": found.method,
        "chunk_size": found.chunk_size,
        "manifest": found.manifest,
        "key": found.key,
        "signed": found.signed,
        "base": None if found.base is None else found.base._asdict(),
    }
    return json.dumps(document, indent=2).encode("ascii") + b"\n"
