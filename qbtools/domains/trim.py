"""Makes the metadata of an archive from that of a host: only what is saved, and what that needs to be understood."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import compose, names, safexml
from qbtools.domains.compose import NewVolume
from qbtools.domains.qubesxml import Domain, Metadata


class Trimmed(NamedTuple):
    """document: the qubes.xml. paths: by each saved domain where its files stand in the archive, `vmQID/`."""

    document: bytes
    paths: dict[str, str]


def trimmed(metadata: Metadata, saved: Mapping[str, Iterable[NewVolume]], home: str | None = None) -> Trimmed:
    """The metadata of an archive of these domains.

    saved: by their names all that is saved of them, a further file as if it were a volume. home: `dom0-home/USER`
    where the home of dom0 is saved, then its size stands in saved["dom0"].
    dom0, labels, pools and the properties of the whole stay, and so does every domain that these or a saved one name,
    directly or not; nothing else. The features backup-content, backup-path and backup-size are set, sizes of saved
    volumes are those that are given, and what is not understood stays as it is. metadata itself is not changed.
    Refused if Qubes OS would not read that much.
    """
    kept = _needed(metadata, saved)
    paths = _paths(metadata, [name for name in saved if name != names.ADMIN])
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
    return Trimmed(compose.bounded(safexml.serialise(root), len(saved)), paths)


def _needed(metadata: Metadata, saved: Iterable[str]) -> set[str]:
    """The names of all domains that stay."""
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
    """`vmQID/` for each, with its qid where that can be used, else with a number of no domain."""
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
            if name in (*names.BACKUP_FEATURES, names.UNFINISHED):
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
