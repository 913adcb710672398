"""qb-host-libvirt: a host whose domains belong to libvirt."""

from __future__ import annotations

from qbtools.commands.cli import Invocation
from qbtools.commands.machines import hostverbs
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.hosts.libvirt.host import LibvirtHost

DOC = f"""\
Usage: qb-host-libvirt [options] URI VERB [DOMAIN [MARK]]

A host whose domains are machines of qemu that libvirt manages. An empty URI
means qemu:///system. Other programs run it for --host libvirt:URI.

Besides the verbs below there are hold DOMAIN MARK, release DOMAIN MARK and
forget DOMAIN MARK.
{hostverbs.HELP}"""


def main(call: Invocation) -> None:
    """Runs VERB for the libvirt at URI."""
    hostverbs.run(call, lambda: _host(call), lambda: _host(call))


def _host(call: Invocation) -> LibvirtHost:
    import os

    from qbtools.hosts.libvirt import checkpoints, holding, uri
    from qbtools.hosts.libvirt.host import LibvirtHost

    place = os.environ.get("QB_LIBVIRT_DIR") or holding.STATE
    pool = os.environ.get("QB_LIBVIRT_POOL", "")
    keep_macs = os.environ.get("QB_LIBVIRT_KEEP_MACS") == "1"
    wish = checkpoints.wished(os.environ)
    return LibvirtHost(uri.checked(call.options["URI"]), place, pool, keep_macs, wish, call.note, call.warn)
