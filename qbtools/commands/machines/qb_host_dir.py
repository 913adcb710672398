"""qb-host-dir: a host that is a directory."""

from __future__ import annotations

from qbtools.commands.cli import Invocation
from qbtools.commands.machines import hostverbs
from qbtools.errors import UsageError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.hosts.local import LocalHost

DOC = f"""\
Usage: qb-host-dir [options] DIR VERB [DOMAIN [MARK]]

A host that is a directory: DIR/qubes.xml has the metadata of its domains, and
DIR/DOMAIN/VOLUME.img are their volumes. Other programs run it for --host dir:DIR.

{hostverbs.HELP}"""


def main(call: Invocation) -> None:
    """Runs VERB for the host in DIR."""
    hostverbs.run(call, lambda: _host(call))


def _host(call: Invocation) -> LocalHost:
    import os

    from qbtools.hosts.directory import Directory
    from qbtools.hosts.local import LocalHost
    from qbtools.hosts.store import Store

    place = call.options["DIR"]
    if not place:
        raise UsageError("the directory has no name")
    return LocalHost(Store(os.path.join(place, "qubes.xml")), Directory(place), call.note)
