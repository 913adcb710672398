"""The verbs of the hosts that come with qbtools: metadata in a file, volumes in a place of their own.

A domain is made volumes first, metadata last, and removed metadata first. Its volumes bear a mark until it is whole,
and again before it is removed: those that no metadata names, and whose mark is of a run that has ended, are strays,
which the next change removes. Nothing else that the metadata does not name is ever touched.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from qbtools.domains import names, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.errors import Damaged, Failed, QbError, Refused
from qbtools.hosts import further, store
from qbtools.hosts.further import Further
from qbtools.hosts.store import Store
from qbtools.hosts.unsaved import Unsaved
from qbtools.volumes.marks import Mark


class Found(NamedTuple):
    """A volume as it is. size, used: bytes of it and, about, of its data; running: its machine runs."""

    size: int
    used: int
    running: bool


class Places(ABC):
    """Where the volumes are. All errors are QbErrors."""

    without: tuple[str, ...] = ()
    """What no name of a domain may have in it, because of how the volumes are called."""

    @abstractmethod
    def source(self, domain: str, volume: str) -> str:
        """The word by which qb-volread knows a volume."""

    @abstractmethod
    def target(self, domain: str, volume: str) -> str:
        """The word by which qb-volwrite knows it."""

    @abstractmethod
    def found(self, domain: str, volumes: Iterable[str]) -> dict[str, Found]:
        """Those of these volumes that are there."""

    @abstractmethod
    def make(self, domain: str, volumes: Sequence[tuple[str, int]], mark: Mark) -> None:
        """Makes fresh volumes, of at least these sizes in bytes; they bear the mark.

        Refused if one is there. What was made when something fails is left, marked.
        """

    @abstractmethod
    def mark(self, domain: str, volumes: Iterable[str], mark: Mark) -> None:
        """Lets the volumes bear a mark, as many as are there."""

    @abstractmethod
    def unmark(self, domain: str, volumes: Iterable[str]) -> None:
        """Takes away whatever mark they bear."""

    @abstractmethod
    def refuse_used(self, domain: str, volumes: Iterable[str]) -> None:
        """Refused if one of these volumes is in use."""

    @abstractmethod
    def drop(self, domain: str) -> None:
        """Removes all volumes of the domain that bear a mark. Refused, or Failed, where one is in use."""

    @abstractmethod
    def strays(self) -> list[tuple[str, Mark]]:
        """Domains of which volumes bear a mark, whether they are in the metadata or not; and that mark."""

    @abstractmethod
    def folder(self, domain: str) -> str:
        """A directory that may be there, in which its further files are."""

    @abstractmethod
    def images(self, volumes: Iterable[str]) -> set[str]:
        """The names in that directory of the files that these volumes are."""

    @abstractmethod
    def unlisted(self, inventory: Metadata, kept: Collection[str]) -> Iterable[tuple[str, str]]:
        """What is there and belongs to no domain of the inventory: each with the reason why it is not saved.

        kept: paths of files that belong to the metadata.
        """


class LocalHost:
    """The verbs; what they print is what they return, see qb-host(7)."""

    def __init__(self, kept: Store, places: Places, note: Callable[[str], None]) -> None:
        self._store = kept
        self._places = places
        self._note = note

    def inventory(self) -> bytes:
        """The metadata of all domains."""
        return safexml.serialise(self._store.read().root)

    def volumes(self, name: str) -> list[str]:
        """A line for each volume that is there, or must be since it is to be saved."""
        domain = self._domain(self._store.read(), name)
        volumes = domain.volumes()
        found = self._places.found(name, [volume.name for volume in volumes])
        return [
            _line(
                volume.name,
                self._places.source(name, volume.name),
                *_described(found.get(volume.name) or Found(volume.size or 0, 0, False)),
                _flag(volume.save_on_stop),
            )
            for volume in volumes
            if volume.save_on_stop or volume.name in found
        ]

    def files(self, name: str) -> list[str]:
        """A line for each further file."""
        return [_line(*pair) for pair in self._further(self._domain(self._store.read(), name)).saved]

    def unsaved(self) -> list[str]:
        """A line for each thing that belongs to a domain and is not saved with it, or belongs to none."""
        inventory = self._store.read()
        found = [one for domain in inventory.domains for one in self._left_out(domain)]
        kept = (self._store.path, self._store.lock)
        found += [Unsaved(None, path, reason) for path, reason in self._places.unlisted(inventory, kept)]
        return [one.to_line() for one in found]

    def _further(self, domain: Domain) -> Further:
        volumes = self._places.images(volume.name for volume in domain.volumes())
        return further.files(domain.name, self._places.folder(domain.name), volumes)

    def _left_out(self, domain: Domain) -> list[Unsaved]:
        try:
            return self._further(domain).unsaved
        except Failed as error:
            return [Unsaved(domain.name, self._places.folder(domain.name), error.message)]

    def create(self, document: bytes) -> list[str]:
        """Makes the one domain of a document. A line for each of its volumes."""
        domain = _sole(document)
        volumes = [(volume.name, volume.size or 0) for volume in domain.volumes() if volume.save_on_stop]
        mark = Mark.own()
        with self._store.locked():
            inventory = self._store.read()
            if domain.name in inventory.by_name:
                raise Refused(f"the domain {domain.name} already exists")
            self._sweep(inventory, domain.name)
            changed = store.with_domain(inventory, self._placed(domain))
            try:
                self._places.make(domain.name, volumes, mark)
                self._store.replace(changed)
            except BaseException:
                if domain.name not in self._store.read().by_name:
                    self._places.drop(domain.name)
                raise
            self._places.unmark(domain.name, [name for name, _size in volumes])
        return [_line(name, self._places.target(domain.name, name)) for name, _size in volumes]

    def set(self, name: str, document: bytes) -> None:
        """Gives an unfinished domain what the document says, and its volumes the sizes that they have."""
        new = _sole(document)
        if new.name != name:
            raise Damaged(f"the document is of {new.name}, not of {name}")
        with self._store.locked():
            inventory = self._store.read()
            old = self._unfinished(inventory, name)
            if new.kind != old.kind:
                raise Damaged(f"{name} is of class {old.kind}, which cannot become {new.kind}")
            element = copy.deepcopy(new.element)
            for part in element.findall("volume-config"):
                element.remove(part)
            element.extend(copy.deepcopy(part) for part in old.element.findall("volume-config"))
            found = self._places.found(name, _made(old))
            for volume in element.findall("volume-config/volume"):
                if (there := found.get(volume.get("name", ""))) is not None:
                    volume.set("size", str(there.size))
            self._store.replace(store.with_changed(inventory, name, element))
            self._places.unmark(name, found)

    def remove(self, name: str, mark: str | None = None) -> None:
        """Removes an unfinished domain; what is left of one that is not there goes too.

        mark: none but one that has this text as its feature; nothing is done for another.
        """
        if problem := names.new_domain_problem(name):
            raise Refused(f"{name}: {problem}")
        with self._store.locked():
            inventory = self._store.read()
            if name in inventory.by_name:
                domain = self._unfinished(inventory, name)
                if mark not in (None, domain.features[names.UNFINISHED]):
                    return
                volumes = _made(domain)
                self._places.refuse_used(name, volumes)
                self._places.mark(name, volumes, Mark.own())
                inventory = Metadata(store.without(inventory, name))
                self._store.replace(inventory.root)
            self._places.drop(name)
            self._sweep(inventory, name)

    def defaults(self) -> str:
        """What stands in the properties of the whole; and the kernels and pools that are in use."""
        inventory = self._store.read()
        root = inventory.root
        stated = {one.get("name", ""): one.text or "" for one in root.findall("properties/property")}

        def domain(key: str) -> str | None:
            text = stated.get(f"default_{key}", "")
            return text if text in inventory.by_name else None

        kernels = [stated.get("default_kernel", "")]
        if kernels[0]:  # else the first in use would pass for the default
            kernels += sorted(domain.properties.get("kernel", "") for domain in inventory.domains)
        pools = [stated.get("default_pool", "")]
        if pools[0]:
            pools += sorted(pool.get("name", "") for pool in root.findall("pools/pool"))
        domains = domain("template"), domain("netvm"), domain("dispvm")
        return Defaults(*domains, _good(kernels), _good(pools), self._places.without).to_lines()

    def _placed(self, domain: Domain) -> Element:
        """A domain of a document; it is said where each volume is that is its own."""
        element = copy.deepcopy(domain.element)
        for volume in element.findall("volume-config/volume[@save_on_stop='True']"):
            volume.set("vid", self._places.source(domain.name, volume.get("name", "")).partition(":")[2])
        return element

    def _sweep(self, inventory: Metadata, name: str) -> None:
        """Removes strays; those of the domain name that nobody is making, whoever began it, since we hold the lock."""
        for domain, mark in self._places.strays():
            if domain not in inventory.by_name and (mark.dead() or domain == name):
                self._note(f"removing volumes of {domain}, left by a run that has ended")
                try:
                    self._places.drop(domain)
                except QbError:
                    if domain == name:  # any other can wait for who comes next
                        raise

    @staticmethod
    def _domain(inventory: Metadata, name: str) -> Domain:
        if name not in inventory.by_name:
            raise Failed(f"there is no domain {name}")
        return inventory.by_name[name]

    def _unfinished(self, inventory: Metadata, name: str) -> Domain:
        domain = self._domain(inventory, name)
        if names.UNFINISHED not in domain.features:
            raise Refused(f"{name} is not a domain that a restore left unfinished")
        return domain


def _sole(document: bytes) -> Domain:
    """The domain of a document beside dom0. Damaged if that is not exactly one, with a name for a new domain."""
    domains = [domain for domain in Metadata(safexml.parse(document)).domains if domain.name != names.ADMIN]
    if len(domains) != 1:
        raise Damaged(f"the document has {len(domains)} domains, not one")
    (domain,) = domains
    if problem := names.new_domain_problem(domain.name):
        raise Refused(f"{domain.name}: {problem}")
    domain.volumes()
    return domain


def _made(domain: Domain) -> list[str]:
    """The volumes of an unfinished domain that create() has made: one that is only named may be another domain's."""
    return [volume.name for volume in domain.volumes() if volume.save_on_stop]


def _good(texts: Iterable[str]) -> tuple[str, ...]:
    """Those that can stand in a line, each once."""
    return tuple(dict.fromkeys(text for text in texts if text and names.word_problem(text) is None))


def _described(found: Found) -> tuple[str, str, str]:
    return str(found.size), str(min(found.used, found.size)), _flag(found.running)


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def _line(*fields: str) -> str:
    """Fields separated by tabs, with newline. Failed if one of them cannot stand in a line."""
    for field in fields:
        if not field.isascii() or not field.isprintable():
            raise Failed(f"{field} cannot be printed in a line: only printable ASCII is allowed")
    return "\t".join(fields) + "\n"
