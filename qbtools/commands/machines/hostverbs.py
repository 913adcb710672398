"""Runs a verb of a host that comes with qbtools: from the command line to the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, UsageError
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    from qbtools.streams import Writer

    class Host(Protocol):
        """The verbs of a host; LocalHost says what each returns."""

        def inventory(self) -> bytes: ...
        def volumes(self, name: str) -> list[str]: ...
        def files(self, name: str) -> list[str]: ...
        def contents(self, domains: Iterable[str]) -> Iterator[str]: ...
        def unsaved(self) -> list[str]: ...
        def defaults(self) -> str: ...
        def check(self, document: bytes) -> None: ...
        def create(self, document: bytes) -> list[str]: ...
        def set(self, name: str, document: bytes) -> None: ...
        def remove(self, name: str, mark: str | None = None) -> None: ...

    class Holder(Protocol):
        """The verbs of a host that holds volumes while they are read."""

        def hold(self, name: str, mark: str) -> list[str]: ...
        def release(self, name: str, mark: str) -> None: ...
        def forget(self, name: str, mark: str) -> list[str]: ...


VERBS = {
    "inventory": False,
    "volumes": True,
    "files": True,
    "contents": False,
    "check": False,
    "create": False,
    "set": True,
    "remove": True,
    "defaults": False,
    "unsaved": False,
    "verbs": False,
}
"""Each verb, and whether it needs a domain."""

_HOLDING = {"hold": True, "release": True, "forget": True}

HELP = f"""\
VERB is inventory, volumes DOMAIN, files DOMAIN, contents, check, create, set DOMAIN,
remove DOMAIN [MARK], defaults, unsaved or verbs. contents reads names of domains
from standard input; check, create and set read the metadata of domains. qb-host(7)
describes them.

Options:
{options.COMMON}
"""


def run(call: Invocation, open_host: Callable[[], Host], open_holder: Callable[[], Holder] | None = None) -> None:
    """Runs VERB. UsageError if it is unknown, or DOMAIN is missing or not allowed.

    open_holder: for a host that has the verbs hold, release and forget.
    """
    verbs = {**VERBS, **_HOLDING} if open_holder is not None else VERBS
    _check(call, verbs)
    verb, domain, mark = call.options["VERB"], call.options["DOMAIN"], call.options["MARK"]
    out = call.stdout(binary=False)
    if verb == "verbs":
        out.write_lines(f"{known}\n" for known in verbs)
    elif verb in _HOLDING and open_holder is not None:
        _hold(verb, domain, mark, open_holder(), out)
    else:
        _answer(call, open_host(), out)


def _check(call: Invocation, verbs: Mapping[str, bool]) -> None:
    verb, domain, mark = call.options["VERB"], call.options["DOMAIN"], call.options["MARK"]
    if verb not in verbs:
        raise UsageError(f"unknown verb: {verb}", f"the verbs are {', '.join(verbs)}")
    hint = f"see {call.program} --help"
    if verbs[verb] != (domain is not None):
        raise UsageError(f"{verb} {'needs a domain' if verbs[verb] else 'takes no domain'}", hint)
    if (mark is not None and verb not in ("remove", *_HOLDING)) or (mark is None and verb in _HOLDING):
        raise UsageError(f"{verb} {'needs a mark' if mark is None else 'takes no mark'}", hint)


def _hold(verb: str, domain: str, mark: str, host: Holder, out: Writer) -> None:
    if verb == "release":
        host.release(domain, mark)
    else:
        out.write_lines(host.hold(domain, mark) if verb == "hold" else host.forget(domain, mark))


def _answer(call: Invocation, host: Host, out: Writer) -> None:
    verb, domain = call.options["VERB"], call.options["DOMAIN"]
    if verb == "inventory":
        out.write(host.inventory())
    elif verb == "defaults":
        out.write(host.defaults().encode("ascii"))
    elif verb == "contents":
        out.write_lines(host.contents(_domains(call)))
    elif verb == "check":
        host.check(_document(call))
    elif verb == "create":
        out.write_lines(host.create(_document(call)))
    elif verb == "set":
        host.set(domain, _document(call))
    elif verb == "remove":
        host.remove(domain, call.options["MARK"])
    else:
        asked = {"volumes": lambda: host.volumes(domain), "files": lambda: host.files(domain), "unsaved": host.unsaved}
        out.write_lines(asked[verb]())


def _domains(call: Invocation) -> list[str]:
    """The names in the lines of standard input. Damaged for anything else."""
    from qbtools.domains import names
    from qbtools.domains.lines import read_fields

    found = []
    for number, fields in read_fields(call.stdin()):
        if len(fields) != 1 or names.domain_problem(fields[0]):
            raise Damaged(f"line {number} is not the name of a domain")
        found.append(fields[0])
    return found


def _document(call: Invocation) -> bytes:
    from qbtools.domains import safexml

    reader = call.stdin()
    data = bytearray()
    while len(data) <= safexml.MAX_SIZE and (part := reader.read_some(BLOCK)):
        data += part
    return bytes(data)
