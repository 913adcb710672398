"""Translates metadata of Qubes OS 2 to 3.2 (root `<QubesVmCollection>`) to that of Qubes OS 4.

In the old format each domain is one element. Its tag is the class, and attributes have everything else. Domains refer
to each other by number (qid), services and PCI devices are Python literals, and there are no sizes of volumes. Source:
the translation by Qubes OS 4 when it restores (qubesadmin.backup.core2, August 2026), except for default_dispvm, for
which Qubes OS creates extra domains.
"""

from __future__ import annotations

import ast
from typing import TypeGuard
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import names
from qbtools.domains.compose import add_labels
from qbtools.errors import Damaged

MAX_LITERAL = 1 << 14
"""The most characters of a literal in an attribute."""

_CLASSES = {
    "QubesAdminVm": names.ADMIN_CLASS,
    "QubesTemplateVm": "TemplateVM",
    "QubesTemplateHVm": "TemplateVM",
    "QubesAppVm": "AppVM",
    "QubesHVm": "AppVM",
    "QubesNetVm": "AppVM",
    "QubesProxyVm": "AppVM",
    "QubesDisposableVm": "DispVM",
}
"""The class in Qubes OS 4; an AppVM without a template is a StandaloneVM."""

# The old defaults of the attributes, which are not restored: today's defaults are different, and better.
_DEFAULTS = {
    "include_in_backups": "True",
    "qrexec_timeout": "60",
    "vcpus": "2",
    "memory": "400",
    "maxmem": "4000",
    "default_user": "user",
    "debug": "False",
    "mac": "",
    "autostart": "False",
}
_GLOBALS = ("default_template", "default_netvm", "updatevm", "clockvm")


def converted(root: Element) -> Element:
    """The same domains as a qubes.xml of Qubes OS 4, for qubesxml.Metadata, which checks the rest.

    Damaged if there is no domain, a qid is malformed or occurs twice, a saved domain has an unknown class or a missing
    template, or a literal is malformed.
    """
    elements = [element for element in root if element.tag in _CLASSES or _is(element, "backup_content")]
    if not elements:
        raise Damaged("qubes.xml has no domain")
    known = _names(elements)
    result = Element("qubes")
    add_labels(result)
    SubElement(result, "pools")
    properties = SubElement(result, "properties")
    for name in _GLOBALS:
        if name in root.attrib:
            _property(properties, name, known.get(root.attrib[name], ""))
    if "default_kernel" in root.attrib:
        _property(properties, "default_kernel", root.attrib["default_kernel"])
    domains = SubElement(result, "domains")
    if not any(element.tag == "QubesAdminVm" for element in elements):  # Qubes OS 2 did not write it
        elements.insert(0, Element("QubesAdminVm", qid="0", name=names.ADMIN, label="black"))
    for element in elements:
        _domain(domains, element, known)
    return result


def _names(elements: list[Element]) -> dict[str, str]:
    """Names by qid, both as text."""
    known: dict[str, str] = {}
    for element in elements:
        qid = element.get("qid", "")
        if names.number(qid) is None:
            raise Damaged(f"a domain of class {element.tag} has no number as qid")
        if qid in known:
            raise Damaged(f"two domains have the qid {qid}")
        known[qid] = element.get("name", "")
    return known


def _domain(parent: Element, old: Element, known: dict[str, str]) -> None:
    """Adds the translation of an old domain."""
    name = old.get("name", "")
    kind = _CLASSES.get(old.tag)
    if kind is None:
        raise Damaged(f"domain {name} has an unknown class: {old.tag}")
    template = old.get("template_qid", "none")
    if kind == "AppVM" and template.lower() == "none":
        kind = "StandaloneVM"
    domain = SubElement(parent, "domain", {"id": f"domain-{old.get('qid')}", "class": kind})
    properties = SubElement(domain, "properties")
    _property(properties, "label", old.get("label", "red"))
    if kind != names.ADMIN_CLASS:
        _property(properties, "name", name)
        _property(properties, "qid", old.get("qid", ""))
        if kind == "AppVM":
            if template not in known and _is(old, "backup_content"):
                raise Damaged(f"domain {name}: its template is the domain {template}, which does not exist")
            _property(properties, "template", known.get(template, ""))
        _properties(properties, old, known)
    features = SubElement(domain, "features")
    for feature, text in _features(old, kind).items():
        SubElement(features, "feature", name=feature).text = text or None
    _devices(SubElement(domain, "devices", {"class": "pci"}), old)
    SubElement(domain, "tags")
    _volumes(SubElement(domain, "volume-config"), kind)


def _property(parent: Element, name: str, text: str) -> None:
    """Adds a property; without text it is empty."""
    SubElement(parent, "property", name=name).text = text or None


def _properties(parent: Element, old: Element, known: dict[str, str]) -> None:
    for name, default in _DEFAULTS.items():
        value = old.get(name, "")
        if value not in ("", default):
            _property(parent, name, value)
    emulated = _is_emulated(old)
    for name in ("kernelopts",) if emulated else ("kernel", "kernelopts"):
        if old.get(f"uses_default_{name}", "True").lower() != "true":
            value = old.get(name, "")
            _property(parent, name, "" if value.lower() == "none" else value)
    if emulated:  # it boots from its own disk
        _property(parent, "virt_mode", "hvm")
        _property(parent, "kernel", "")
    if old.tag in ("QubesNetVm", "QubesProxyVm"):
        _property(parent, "provides_network", "True")
    if old.tag == "QubesNetVm":
        _property(parent, "netvm", "")
    elif old.get("uses_default_netvm", "True") != "True":
        _property(parent, "netvm", known.get(old.get("netvm_qid", ""), ""))  # a missing one: no network


def _features(old: Element, kind: str) -> dict[str, str]:
    features = {"internal": "1"} if _is(old, "internal") else {}
    if _is_emulated(old):  # with another emulator Windows would find other hardware, and might not start
        features["linux-stubdom"] = ""
    elif old.tag == "QubesTemplateVm" or (old.tag == "QubesAppVm" and kind == "StandaloneVM"):
        features |= {"qrexec": "1", "gui": "1"}  # the old versions took both agents for granted
    services = _literal(old, "services", {})
    if not isinstance(services, dict):
        raise _malformed(old, "services")
    for service, value in services.items():
        # Old versions did not check the name of a service (core-modules/000QubesVm.py, "services").
        if not _is_text(service):
            raise _malformed(old, "services")
        feature = "check-updates" if service == "qubes-update-check" else f"service.{service}"
        features[feature] = "1" if value else ""
    features["backup-content"] = ""
    if _is(old, "backup_content"):
        path = old.get("backup_path", "").rstrip("/")
        features["backup-content"] = "1"
        features["backup-path"] = path if kind == names.ADMIN_CLASS else f"{path}/"
        features["backup-size"] = old.get("backup_size", "")
    return features


def _devices(parent: Element, old: Element) -> None:
    # A list, its items without brackets, or "none"; items were not checked (core-modules/000QubesVm.py, "pcidevs").
    devices = None if old.get("pcidevs", "").lower() == "none" else _literal(old, "pcidevs", [])
    devices = [devices] if isinstance(devices, str) else devices
    if not isinstance(devices, (list, tuple, type(None))):
        raise _malformed(old, "pcidevs")
    for device in devices or ():
        if not _is_text(device):
            raise _malformed(old, "pcidevs")
        attributes = {"backend-domain": names.ADMIN, "id": device.replace(":", "_")}
        element = SubElement(parent, "device", attributes)
        if old.get("pci_strictreset", "True") == "False":
            SubElement(element, "option", name="no-strict-reset").text = "True"


def _volumes(parent: Element, kind: str) -> None:
    """The volumes of such a domain, and which were saved. Only the archive has the sizes."""
    if kind == names.ADMIN_CLASS:
        return
    saved = {"AppVM": ("private",), "DispVM": ()}.get(kind, ("root", "private"))
    for name in ("root", "private", "volatile"):
        SubElement(parent, "volume", name=name, rw="True", save_on_stop=str(name in saved))


def _is_emulated(old: Element) -> bool:
    """Whether it is an HVM, which needs no kernel of the host."""
    return "HVm" in old.tag


def _is_text(item: object) -> TypeGuard[str]:
    """Whether an XML text can contain it."""
    return isinstance(item, str) and item != "" and item.isprintable()


def _is(old: Element, attribute: str) -> bool:
    return old.get(attribute) == "True"


def _literal(old: Element, attribute: str, default: object) -> object:
    """The value of a Python literal; default if there is none."""
    text = old.get(attribute, "").strip()
    if not text:
        return default
    if len(text) > MAX_LITERAL:
        raise _malformed(old, attribute)
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _malformed(old, attribute) from None
    return default if value is None else value


def _malformed(old: Element, attribute: str) -> Damaged:
    return Damaged(f"domain {old.get('name', '')}: {attribute} is malformed")
