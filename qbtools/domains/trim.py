"""Makes the metadata of an archive from that of a host: only saved domains, and everything that they refer to."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import compose, names
from qbtools.domains.compose import NewVolume
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.lean import NamedTuple


class Trimmed(NamedTuple):
    """document: the qubes.xml. paths: for each saved domain the directory of its files in the archive, `vmN/`."""

    document: bytes
    paths: dict[str, str]


def trimmed(
    metadata: Metadata,
    saved: Mapping[str, Iterable[NewVolume]],
    home: str | None = None,
    numbers: Mapping[str, int] | None = None,
) -> Trimmed:
    """The metadata of an archive of these domains.

    saved: by name everything that is saved of a domain, with further files as volumes. home: `dom0-home/USER` if the
    home of dom0 is saved; then saved["dom0"] has its size. numbers: the N in the path `vmN/` of each other domain, by
    its name; None: they are chosen here.
    dom0, labels, pools and global properties are kept, and every domain that these or a saved domain name, directly or
    not. Other domains are removed. The features backup-content, backup-path and backup-size are set, saved volumes get
    the given sizes, and unknown parts are not changed. metadata itself is not changed.
    Refused if Qubes OS would not read that much.
    """
    kept = _needed(metadata, saved)
    domains = [name for name in saved if name != names.ADMIN]
    paths = _paths(metadata, domains) if numbers is None else {name: f"vm{numbers[name]}/" for name in domains}
    if home is not None:
        paths[names.ADMIN] = home
    root = copy.deepcopy(metadata.root)
    for parent in root.findall("domains"):
        for domain, element in zip(metadata.domains, parent.findall("domain"), strict=True):
            if domain.name not in kept:
                parent.remove(element)
                continue
            volumes = list(saved.get(domain.name, ()))
            _set_features(element, paths.get(domain.name), volumes)
            _set_sizes(element, volumes)
    return Trimmed(compose.bounded(root, len(saved)), paths)


def _needed(metadata: Metadata, saved: Iterable[str]) -> set[str]:
    """The names of all domains that are kept."""
    pending = [names.ADMIN, *saved]
    for element in metadata.root.findall("properties/property"):
        if names.is_reference(element.get("name", "")):
            pending.append(element.text or "")
    kept: set[str] = set()
    while pending:
        name = pending.pop()
        domain = metadata.by_name.get(name)
        if domain is not None and name not in kept:
            kept.add(name)
            pending += _named_by(domain)
    return kept


def _named_by(domain: Domain) -> list[str]:
    found = [text for name, text in domain.properties.items() if names.is_reference(name)]
    for device in domain.element.findall("devices/device"):
        found += names.backends(device.attrib).values()
    return found


def _paths(metadata: Metadata, saved: Iterable[str]) -> dict[str, str]:
    """`vmQID/` for each domain, with its qid if that can be used, otherwise with a number that no domain has."""
    given: dict[str, int] = {}
    used: set[int] = set()
    for domain in metadata.domains:
        qid = domain.properties.get("qid") or (domain.element.get("id") or "").removeprefix("domain-")
        number = names.number(qid)
        if number and names.is_domain_path(f"vm{qid}/") and number not in used:
            given[domain.name] = number
            used.add(number)
    free = max(used, default=0)
    for name in saved:
        if name not in given:
            free += 1
            given[name] = free
    return {name: f"vm{given[name]}/" for name in saved}


def _set_features(domain: Element, path: str | None, volumes: list[NewVolume]) -> None:
    features = domain.find("features")
    if features is None:
        features = SubElement(domain, "features")
    for part in domain.findall("features"):
        for feature in part.findall("feature"):
            name = feature.get("name", "")
            if name in (*names.BACKUP_FEATURES, names.UNFINISHED, names.HELD):
                part.remove(feature)
    SubElement(features, "feature", name="backup-content").text = None if path is None else "1"
    if path is not None:
        SubElement(features, "feature", name="backup-path").text = path
        SubElement(features, "feature", name="backup-size").text = str(compose.sealed_bound(volumes))


def _set_sizes(domain: Element, volumes: list[NewVolume]) -> None:
    sizes = {volume.name: str(volume.size) for volume in volumes}
    for volume in domain.findall("volume-config/volume"):
        size = sizes.get(volume.get("name", ""))
        if size is not None and volume.get("save_on_stop") == "True":
            volume.set("size", size)
