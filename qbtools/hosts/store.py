"""A file with the metadata of all domains of a host. It is replaced as a whole, by one run at a time."""

from __future__ import annotations

import copy
import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from xml.etree.ElementTree import Element, SubElement

from qbtools.descriptors import lock_within
from qbtools.domains import compose, names, safexml
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed
from qbtools.streams import Reader, Writer
from qbtools.volumes.files import leftovers
from qbtools.volumes.kind import naming
from qbtools.volumes.marks import Mark

PATIENCE = 60.0
"""Seconds to wait for another run that has the lock."""

_NEW_MODE = 0o600
_ADMIN_LABEL = "black"


class Store:
    """The file. If it does not exist, the host has no domains except dom0."""

    def __init__(self, path: str) -> None:
        """path: of the file; its directory must exist."""
        self.path = os.path.realpath(path)
        self.lock = f"{self.path}.lock"
        self._directory, self._base = os.path.split(self.path)

    def read(self) -> Metadata:
        """The metadata. Damaged if it is malformed, Failed on an I/O error."""
        try:
            with io.FileIO(self.path) as file:
                return Metadata(safexml.load(Reader(file, self.path)))
        except FileNotFoundError:
            with naming(f"read {self._directory}"):
                os.stat(self._directory)
            return Metadata(_nothing())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While the body runs, no other run changes the file. Failed if another one keeps the lock too long."""
        with naming(f"lock {self.path}"):
            fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _NEW_MODE)
        try:
            if not lock_within(fd, PATIENCE):
                raise Failed(f"another run has held {self.lock} for {PATIENCE:.0f} seconds")
            yield
        finally:
            os.close(fd)

    def replace(self, root: Element) -> None:
        """Replaces the content of the file with root in one step and on stable storage. Owner and mode are kept.

        Damaged if a reader would not accept root; then nothing is changed.
        """
        document = safexml.serialise(root)
        Metadata(safexml.parse(document))
        with naming(f"replace {self.path}"):
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                leftovers.remove_dead(directory)
                self._replace(directory, document)
                os.fsync(directory)
            finally:
                os.close(directory)

    def check(self, root: Element) -> None:
        """Raises what replace() would raise for root. Changes nothing."""
        Metadata(safexml.parse(safexml.serialise(root)))
        with naming(f"replace {self.path}"):
            if not os.access(self._directory, os.W_OK | os.X_OK):
                read_only = os.statvfs(self._directory).f_flag & os.ST_RDONLY
                raise OSError(errno.EROFS if read_only else errno.EACCES, "")

    def _replace(self, directory: int, document: bytes) -> None:
        temporary = leftovers.new_name(Mark.own())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, _NEW_MODE, dir_fd=directory)
        try:
            with io.FileIO(fd, "w") as file:
                Writer(file, self.path).write(document)
                with suppress(FileNotFoundError):
                    _take_over(fd, os.stat(self._base, dir_fd=directory))
                os.fsync(fd)
            os.rename(temporary, self._base, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise


def _take_over(fd: int, old: os.stat_result) -> None:
    """Sets owner and mode as in the replaced file. Without the owner, group and others get no permissions."""
    mode = stat.S_IMODE(old.st_mode) & 0o777
    try:
        os.fchown(fd, old.st_uid, old.st_gid)
    except PermissionError:
        mode &= 0o700
    os.fchmod(fd, mode)


def _nothing() -> Element:
    """The metadata of a host without domains."""
    root = Element("qubes")
    compose.add_labels(root)
    SubElement(root, "pools")
    SubElement(root, "properties")
    domains = SubElement(root, "domains")
    admin = SubElement(domains, "domain", {"id": "domain-0", "class": names.ADMIN_CLASS})
    SubElement(SubElement(admin, "properties"), "property", name="label").text = _ADMIN_LABEL
    return root


def with_domains(metadata: Metadata, domains: Iterable[Element]) -> Element:
    """A root with more domains, which get an unused id and qid."""
    root = copy.deepcopy(metadata.root)
    numbers = [names.number(one.properties.get("qid", "")) or 0 for one in metadata.domains]
    numbers += [names.number(one.element.get("id", "").removeprefix("domain-")) or 0 for one in metadata.domains]
    for number, domain in enumerate(domains, max(numbers) + 1):
        added = copy.deepcopy(domain)
        identify(added, str(number))
        _all(root).append(added)
    return root


def with_changed(metadata: Metadata, name: str, domain: Element) -> Element:
    """A root in which a domain is replaced by the given one, except for its id and qid."""
    old = metadata.by_name[name]
    domain = copy.deepcopy(domain)
    identify(domain, old.properties.get("qid") or old.element.get("id", "").removeprefix("domain-"))
    domain.set("id", old.element.get("id", ""))
    root = copy.deepcopy(metadata.root)
    parent = _all(root)
    at = metadata.domains.index(old)
    parent.remove(parent.findall("domain")[at])
    parent.insert(at, domain)
    return root


def without(metadata: Metadata, name: str) -> Element:
    """A root without a domain."""
    root = copy.deepcopy(metadata.root)
    parent = _all(root)
    parent.remove(parent.findall("domain")[metadata.domains.index(metadata.by_name[name])])
    return root


def _all(root: Element) -> Element:
    """The element of a checked qubes.xml that contains the domains."""
    return root.findall("domains")[0]


def identify(domain: Element, number: str) -> None:
    """Sets the id and the qid of a domain."""
    domain.set("id", f"domain-{number}")
    properties = safexml.child(domain, "properties")
    found = next((one for one in properties.findall("property") if one.get("name") == "qid"), None)
    if found is None:
        found = SubElement(properties, "property", name="qid")
    found.text = number
