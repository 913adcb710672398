"""The metadata from which a host creates one domain of a plan: the documents of its verbs `create` and `set`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import names, roles, safexml
from qbtools.domains.outcome import KERNEL_VOLUME
from qbtools.domains.planlines import Plan, PlanLine
from qbtools.domains.qubesxml import LIBVIRT, Metadata

# The identity of the domain on its old host: the new host assigns another one.
_IDENTITY = ("qid", "uuid", "installed_by_rpm", "backup_timestamp")
_PLACES = ("vid", "source")


def document(archive: Metadata, plan: Plan, lines: Sequence[PlanLine], references: bool, mark: str | None) -> bytes:
    """A qubes.xml with the labels of the host, no global properties, dom0, and the domains of lines as planned.

    A domain has its new name, no qid, and any id, because the host assigns its own. references: name other
    domains, which must then exist; otherwise only dom0 and the template, which decides the volumes, are named.
    If it is renamed, its XML of libvirt gets the new name and loses the UUID.
    mark: the text of the feature names.UNFINISHED; None: without it. names.BACKUP_FEATURES are removed. The
    volumes have no vid and source (their old place), and `kernel` is left out. Everything else is as in the archive.
    """
    root = Element("qubes")
    root.extend(copy.deepcopy(part) for part in plan.host.root.findall("labels"))
    SubElement(root, "properties")
    domains = SubElement(root, "domains")
    admin = SubElement(domains, "domain", {"id": "domain-0", "class": names.ADMIN_CLASS})
    _set_property(SubElement(admin, "properties"), "label", plan.host.by_name[names.ADMIN].label)
    for number, line in enumerate(lines, 1):
        domain = copy.deepcopy(archive.by_name[line.domain].element)
        domain.set("id", f"domain-{number}")
        domain.tail = None
        domains.append(domain)
        _change(domain, line, references, mark)
    return safexml.serialise(root)


def _change(domain: Element, line: PlanLine, references: bool, mark: str | None) -> None:
    """Makes a domain of the archive what the plan says."""
    properties = _part(domain, "properties")
    _set_property(properties, "name", line.name)
    _set_property(properties, "label", line.label)
    _set_property(properties, "kernel", line.written.kernel)
    for name in _IDENTITY:
        _set_property(properties, name, names.DEFAULT)
    if line.name != line.domain:
        _rename_in_libvirt(domain, line.name)
    _set_references(domain, properties, line, references)
    _set_features(_part(domain, "features"), mark)
    _set_volumes(domain, line)


def _rename_in_libvirt(domain: Element, name: str) -> None:
    for untrusted in domain.findall(f"{LIBVIRT}/domain"):
        untrusted[:] = [part for part in untrusted if part.tag not in ("name", "uuid")]
        SubElement(untrusted, "name").text = name


def _part(domain: Element, tag: str) -> Element:
    """The child with that name, created if missing. The content of further ones is moved to the first."""
    first, *more = domain.findall(tag) or [SubElement(domain, tag)]
    for part in more:
        first.extend(part)
        domain.remove(part)
    return first


def _set_property(properties: Element, name: str, value: str | None) -> None:
    """Sets a property. None sets it to nothing, names.DEFAULT removes it."""
    found = next((one for one in properties.findall("property") if one.get("name") == name), None)
    if value == names.DEFAULT:
        if found is not None:
            properties.remove(found)
        return
    if found is None:
        found = SubElement(properties, "property", name=name)
    found.text = value


def _set_references(domain: Element, properties: Element, line: PlanLine, references: bool) -> None:
    written = line.written._asdict()
    for role in roles.ROLES:
        shown = references or role == roles.TEMPLATE
        # A class without template has no such property, not one that is set to nothing.
        absent = not shown or (role == roles.TEMPLATE and line.written.template is None)
        _set_property(properties, role, names.DEFAULT if absent else written[role])
    # Children are filtered in one pass, because the archive may have very many of them.
    properties[:] = [part for part in properties if part.tag != "property" or _refer(part, line, references)]
    for devices in domain.findall("devices"):
        devices[:] = [part for part in devices if part.tag != "device" or _attach(part, line, references)]


def _refer(element: Element, line: PlanLine, references: bool) -> bool:
    """Changes a property that names another domain to its new name. False if it must be removed."""
    name, old = element.get("name", ""), element.text
    if names.is_reference(name) and name not in roles.ROLES and old:
        element.text = _new_name(line, old, references)
        return element.text not in (None, "", names.DEFAULT)
    return True


def _attach(device: Element, line: PlanLine, references: bool) -> bool:
    """Changes the domain that provides a device to its new name. False if the device must be removed."""
    for key, old in names.backends(device.attrib).items():
        backend = _new_name(line, old, references)
        if backend is None:
            return False
        device.set(key, backend)
    return True


def _new_name(line: PlanLine, old: str, references: bool) -> str | None:
    """The name of a domain of the archive on the host; None if it must not be named."""
    return line.further.get(old) if references or old == names.ADMIN else None


def _set_features(features: Element, unfinished: str | None) -> None:
    ours = (*names.BACKUP_FEATURES, names.UNFINISHED, names.HELD)
    features[:] = [part for part in features if part.tag != "feature" or part.get("name") not in ours]
    if unfinished is not None:
        SubElement(features, "feature", name=names.UNFINISHED).text = unfinished


def _set_volumes(domain: Element, line: PlanLine) -> None:
    for config in domain.findall("volume-config"):
        config[:] = [part for part in config if part.tag != "volume" or part.get("name") != KERNEL_VOLUME]
        for volume in config.findall("volume"):
            for key in _PLACES:
                volume.attrib.pop(key, None)
            pool = volume.get("pool", "")
            if pool in line.pools:
                new = line.pools[pool]
                volume.attrib.pop("pool")
                if new is not None:
                    volume.set("pool", new)
