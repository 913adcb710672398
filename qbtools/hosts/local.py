"""The verbs of the hosts that come with qbtools: the metadata is in a file, the volumes are in a separate place.

When a domain is created, its volumes come first and the metadata last. When it is removed, the metadata comes first.
Its volumes have a mark until the domain is complete, and again before it is removed. Volumes that are not in the
metadata and have the mark of an ended run are strays, which the next change removes. Other volumes that are not in the
metadata are never touched.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from xml.etree.ElementTree import Element

from qbtools.domains import names, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.errors import Damaged, Failed, QbError, Refused
from qbtools.hosts import further, store
from qbtools.hosts.further import Further
from qbtools.hosts.store import Store
from qbtools.hosts.unsaved import Unsaved
from qbtools.hosts.verbtext import contents, flag, good, line, several, sole
from qbtools.lean import NamedTuple
from qbtools.volumes.marks import Mark


class Found(NamedTuple):
    """A volume as it exists. size, used: its bytes, and an estimate of its data; running: its machine runs."""

    size: int
    used: int
    running: bool


class Places(ABC):
    """The place of the volumes. All errors are QbErrors."""

    without: tuple[str, ...] = ()
    """Texts that no name of a domain may contain, because of the names of volumes."""

    @abstractmethod
    def source(self, domain: str, volume: str) -> str:
        """The word of a volume for qb-volread."""

    @abstractmethod
    def target(self, domain: str, volume: str) -> str:
        """The word of a volume for qb-volwrite."""

    @abstractmethod
    def found(self, domain: str, volumes: Iterable[str]) -> dict[str, Found]:
        """Those of these volumes that exist."""

    @abstractmethod
    def check(self, domain: str, volumes: Iterable[str]) -> None:
        """Refused or Failed if make() cannot create them. Volumes with a mark for this domain are no obstacle."""

    @abstractmethod
    def make(self, domain: str, volumes: Sequence[tuple[str, int]], mark: Mark) -> None:
        """Creates new volumes with the mark, of at least these sizes in bytes.

        Refused if one exists. After a failure the new volumes remain, with the mark.
        """

    @abstractmethod
    def mark(self, domain: str, volumes: Iterable[str], mark: Mark) -> None:
        """Gives the existing volumes a mark."""

    @abstractmethod
    def unmark(self, domain: str, volumes: Iterable[str]) -> None:
        """Removes their marks."""

    @abstractmethod
    def refuse_used(self, domain: str, volumes: Iterable[str]) -> None:
        """Refused if one of these volumes is in use."""

    @abstractmethod
    def drop(self, domain: str) -> None:
        """Removes all volumes of the domain that have a mark. Refused or Failed if one is in use."""

    @abstractmethod
    def strays(self) -> list[tuple[str, Mark]]:
        """The domains whose volumes have a mark, in the metadata or not, and the mark."""

    @abstractmethod
    def folder(self, domain: str) -> str:
        """The directory of its further files, which may not exist."""

    @abstractmethod
    def images(self, volumes: Iterable[str]) -> set[str]:
        """The names of files in that directory that are these volumes."""

    @abstractmethod
    def unlisted(self, inventory: Metadata, kept: Collection[str]) -> Iterable[tuple[str, str]]:
        """Everything here that belongs to no domain of the inventory, each with the reason why it is not saved.

        kept: paths of files that belong to the metadata.
        """


class LocalHost:
    """The verbs. They return their output; see qb-host(7)."""

    def __init__(self, kept: Store, places: Places, note: Callable[[str], None]) -> None:
        self._store = kept
        self._places = places
        self._note = note

    def inventory(self) -> bytes:
        """The metadata of all domains."""
        return safexml.serialise(self._store.read().root)

    def contents(self, domains: Iterable[str]) -> Iterator[str]:
        """The lines of volumes() and files() for each of these domains, as verbtext.contents()."""
        inventory = self._store.read()
        return contents(domains, lambda name: self._volumes(inventory, name), lambda name: self._files(inventory, name))

    def volumes(self, name: str) -> list[str]:
        """A line for each volume that exists, or that must exist because it is saved."""
        return self._volumes(self._store.read(), name)

    def _volumes(self, inventory: Metadata, name: str) -> list[str]:
        volumes = self._domain(inventory, name).volumes()
        found = self._places.found(name, [volume.name for volume in volumes])
        return [
            line(
                volume.name,
                self._places.source(name, volume.name),
                *_described(found.get(volume.name) or Found(volume.size or 0, 0, False)),
                flag(volume.save_on_stop),
            )
            for volume in volumes
            if volume.save_on_stop or volume.name in found
        ]

    def files(self, name: str) -> list[str]:
        """A line for each further file."""
        return self._files(self._store.read(), name)

    def _files(self, inventory: Metadata, name: str) -> list[str]:
        return [line(*pair) for pair in self._further(self._domain(inventory, name)).saved]

    def unsaved(self) -> list[str]:
        """A line for each thing that belongs to a domain but is not saved with it, or that belongs to none."""
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

    def check(self, document: bytes) -> None:
        """Raises what create() would raise for each domain of a document. Changes nothing."""
        inventory = self._store.read()
        domains = several(document)
        for domain in domains:
            _refuse_taken(inventory, domain.name)
            try:
                self._places.check(domain.name, _made(domain))
            except QbError as error:
                raise type(error)(f"{domain.name}: {error.message}", error.hint) from error
        self._store.check(store.with_domains(inventory, map(self._placed, domains)))

    def create(self, document: bytes) -> list[str]:
        """Creates the domain of a document. A line for each of its volumes."""
        domain = sole(document)
        volumes = [(volume.name, volume.size or 0) for volume in domain.volumes() if volume.save_on_stop]
        mark = Mark.own()
        with self._store.locked():
            inventory = self._store.read()
            _refuse_taken(inventory, domain.name)
            self._sweep(inventory, domain.name)
            changed = store.with_domains(inventory, [self._placed(domain)])
            try:
                self._places.make(domain.name, volumes, mark)
                self._store.replace(changed)
            except BaseException:
                if domain.name not in self._store.read().by_name:
                    self._places.drop(domain.name)
                raise
            self._places.unmark(domain.name, [name for name, _size in volumes])
        return [line(name, self._places.target(domain.name, name)) for name, _size in volumes]

    def set(self, name: str, document: bytes) -> None:
        """Sets everything in the document for an unfinished domain, with the real sizes of its volumes."""
        new = sole(document)
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
        """Removes an unfinished domain, or the leftovers of one that no longer exists.

        mark: only if the feature has this text; otherwise nothing is done.
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
        """The global properties, and the kernels and pools that are in use."""
        inventory = self._store.read()
        root = inventory.root
        stated = {one.get("name", ""): one.text or "" for one in root.findall("properties/property")}

        def domain(key: str) -> str | None:
            text = stated.get(f"default_{key}", "")
            return text if text in inventory.by_name else None

        kernels = [stated.get("default_kernel", "")]
        if kernels[0]:  # otherwise the first one in use would count as the default
            kernels += sorted(domain.properties.get("kernel", "") for domain in inventory.domains)
        pools = [stated.get("default_pool", "")]
        if pools[0]:
            pools += sorted(pool.get("name", "") for pool in root.findall("pools/pool"))
        domains = domain("template"), domain("netvm"), domain("dispvm")
        return Defaults(*domains, good(kernels), good(pools), self._places.without).to_lines()

    def _placed(self, domain: Domain) -> Element:
        """A domain of a document, with the places of its own volumes."""
        element = copy.deepcopy(domain.element)
        for volume in element.findall("volume-config/volume[@save_on_stop='True']"):
            volume.set("vid", self._places.source(domain.name, volume.get("name", "")).partition(":")[2])
        return element

    def _sweep(self, inventory: Metadata, name: str) -> None:
        """Removes strays, and all marked volumes of the domain name: under our lock nobody else can be creating it."""
        for domain, mark in self._places.strays():
            if domain not in inventory.by_name and (mark.dead() or domain == name):
                self._note(f"removing volumes of {domain}, left by a run that has ended")
                try:
                    self._places.drop(domain)
                except QbError:
                    if domain == name:  # the next run can remove any other
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


def _refuse_taken(inventory: Metadata, name: str) -> None:
    if name in inventory.by_name:
        raise Refused(f"the domain {name} already exists")


def _made(domain: Domain) -> list[str]:
    """The volumes of an unfinished domain that create() has made: others may belong to another domain."""
    return [volume.name for volume in domain.volumes() if volume.save_on_stop]


def _described(found: Found) -> tuple[str, str, str]:
    return str(found.size), str(min(found.used, found.size)), flag(found.running)
