"""qb-host-lvm: a host that is a thin pool."""

from __future__ import annotations

from qbtools.commands.cli import Invocation
from qbtools.commands.machines import hostverbs
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.hosts.local import LocalHost

DOC = f"""\
Usage: qb-host-lvm [options] POOL VERB [DOMAIN [MARK]]

A host that is a thin pool of lvm, VG/POOL: its volumes are called vm-DOMAIN-VOLUME,
and the metadata is in /var/lib/qbtools/hosts/VG/POOL/qubes.xml, or in VG/POOL
below $QB_LVM_HOSTS. Other programs run it for --host lvm:VG/POOL.

{hostverbs.HELP}"""


def main(call: Invocation) -> None:
    """Runs VERB for the host in POOL."""
    hostverbs.run(call, lambda: _host(call))


def _host(call: Invocation) -> LocalHost:
    import os

    from qbtools.hosts.local import LocalHost
    from qbtools.hosts.store import Store
    from qbtools.hosts.thinpool import STATE, ThinPool

    state = os.environ.get("QB_LVM_HOSTS") or STATE
    pool = ThinPool(call.options["POOL"], state, call.note, call.warn)
    return LocalHost(Store(os.path.join(pool.place, "qubes.xml")), pool, call.note)
