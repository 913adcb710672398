"""The things on the host that the domains of a plan can use."""

from __future__ import annotations

from collections.abc import Callable, Collection

from qbtools.domains import names
from qbtools.domains.defaults import Defaults
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.domains.roles import DISPOSABLE_CLASS, TEMPLATE_CLASS, is_disposable_template

_LABEL = "red"


class HostSide:
    """The inventory and defaults of a host, for a restore."""

    def __init__(self, metadata: Metadata, defaults: Defaults, leftovers: Collection[str]) -> None:
        """leftovers: names of domains that an ended run has left; they count as missing."""
        self.metadata = metadata
        self.leftovers = frozenset(leftovers)
        self.taken = metadata.by_name.keys() - self.leftovers
        self.defaults = defaults
        self._pools = {pool.get("name", "") for pool in metadata.root.findall("pools/pool")} | set(defaults.pools)

    def name_problem(self, name: str) -> str | None:
        """Why no domain with that name can be created here; None if it can. The name may be taken."""
        return names.new_domain_problem(name, self.defaults.without)

    def find(self, name: str) -> Domain | None:
        """The domain with that name, if others may use it: not an unfinished one."""
        domain = self.metadata.by_name.get(name) if name in self.taken and name not in names.KEYWORDS else None
        return None if domain is None or names.UNFINISHED in domain.features else domain

    def default_template(self, kind: str) -> str | None:
        """The name of the host's default template for a domain of this class, None if there is no usable one."""
        if kind == DISPOSABLE_CLASS:
            return self.default_dispvm()
        return self._usable(self.defaults.template, lambda found: found.kind == TEMPLATE_CLASS)

    def default_dispvm(self) -> str | None:
        """The same for the default template of DispVMs."""
        return self._usable(self.defaults.dispvm, is_disposable_template)

    def default_netvm(self) -> str | None:
        """The same for the default network."""
        return self._usable(self.defaults.netvm, lambda found: found.flag("provides_network"))

    def _usable(self, name: str | None, good: Callable[[Domain], bool]) -> str | None:
        found = None if name is None else self.find(name)
        return found.name if found is not None and good(found) else None

    def label(self, wanted: str) -> str:
        """The label itself if the host has it, otherwise red, otherwise its first label."""
        labels = self.metadata.labels
        return next(name for name in (wanted, _LABEL, labels[0]) if name in labels)

    def has_kernel(self, name: str) -> bool:
        """Whether there is a kernel of that name, as far as the host says."""
        kernels = self.defaults.kernels
        return names.word_problem(name) is None and (not kernels or name in kernels)

    def has_pool(self, name: str) -> bool:
        """Whether there is a pool of that name, as far as the host says."""
        return not self._pools or name in self._pools

    @property
    def default_pool(self) -> str | None:
        """The pool that replaces a missing one; None if the host decides."""
        return next(iter(self.defaults.pools), None)
