"""The records of domains that are not finished: what is added to their metadata, and how they are listed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import names, safexml
from qbtools.domains.qubesxml import LIBVIRT, Domain
from qbtools.hosts import store
from qbtools.hosts.libvirt import tpm

_DEFINED = "defined"


def merged(root: Element, domains: Iterable[Domain], number: int) -> None:
    """Adds unfinished domains to the inventory of libvirt; the last number in it is given."""
    (parent,) = root.findall("domains")
    for at, domain in enumerate(domains, number + 1):
        element = copy.deepcopy(domain.element)
        store.identify(element, str(at))
        parent.append(element)


def has_tpm(domain: Domain) -> bool:
    """Whether the machine has a TPM whose state is in files."""
    untrusted = domain.element.find(f"{LIBVIRT}/domain")
    return untrusted is not None and tpm.has_state(untrusted)


def uuid_of(domain: Domain) -> str | None:
    """The UUID by which libvirt will know the domain, as soon as it is finished."""
    found = domain.element.find(LIBVIRT)
    return None if found is None else found.get(_DEFINED)


def marked(document: bytes, uuid: str | None, mark: str | None = None) -> bytes:
    """The document with this UUID in place of one in it, and the mark of an unfinished domain if it is given."""
    root = safexml.parse(document)
    for element in root.findall("domains/domain"):
        for untrusted in element.findall(LIBVIRT):
            untrusted.attrib.pop(_DEFINED, None)
        if uuid is not None and mark is not None and element.get("class") != names.ADMIN_CLASS:
            SubElement(safexml.child(element, "features"), "feature", name=names.UNFINISHED).text = mark
            safexml.child(element, LIBVIRT).set(_DEFINED, uuid)
    return safexml.serialise(root)
