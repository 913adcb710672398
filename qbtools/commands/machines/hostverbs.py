"""Runs a verb of a host that comes with qbtools: from the command line to the output."""

from __future__ import annotations

from collections.abc import Callable

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import BLOCK

if TYPE_CHECKING:
    from qbtools.hosts.local import LocalHost

VERBS = {
    "inventory": False,
    "volumes": True,
    "files": True,
    "create": False,
    "set": True,
    "remove": True,
    "defaults": False,
    "unsaved": False,
    "verbs": False,
}
"""Each verb, and whether it needs a domain."""

HELP = f"""\
VERB is inventory, volumes DOMAIN, files DOMAIN, create, set DOMAIN,
remove DOMAIN [MARK], defaults, unsaved or verbs; create and set read the metadata
of a domain from standard input. qb-host(7) describes them.

Options:
{options.COMMON}
"""


def run(call: Invocation, open_host: Callable[[], LocalHost]) -> None:
    """Runs VERB. UsageError if it is unknown, or DOMAIN is missing or not allowed."""
    verb, domain = call.options["VERB"], call.options["DOMAIN"]
    if verb not in VERBS:
        raise UsageError(f"unknown verb: {verb}", f"the verbs are {', '.join(VERBS)}")
    hint = f"see {call.program} --help"
    if call.options["MARK"] is not None and verb != "remove":
        raise UsageError("the arguments do not fit together", hint)
    if VERBS[verb] != (domain is not None):
        raise UsageError(f"{verb} {'needs a domain' if VERBS[verb] else 'takes no domain'}", hint)
    out = call.stdout(binary=False)
    if verb == "verbs":
        out.write_lines(f"{known}\n" for known in VERBS)
        return
    host = open_host()
    if verb == "inventory":
        out.write(host.inventory())
    elif verb == "defaults":
        out.write(host.defaults().encode("ascii"))
    elif verb == "create":
        out.write_lines(host.create(_document(call)))
    elif verb == "set":
        host.set(domain, _document(call))
    elif verb == "remove":
        host.remove(domain, call.options["MARK"])
    else:
        asked = {"volumes": lambda: host.volumes(domain), "files": lambda: host.files(domain), "unsaved": host.unsaved}
        out.write_lines(asked[verb]())


def _document(call: Invocation) -> bytes:
    from qbtools.domains import safexml

    reader = call.stdin()
    data = bytearray()
    while len(data) <= safexml.MAX_SIZE and (part := reader.read_some(BLOCK)):
        data += part
    return bytes(data)
