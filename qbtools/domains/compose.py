"""Makes the metadata of an archive (qubes.xml; see qb-format(5)) for volumes that are not from Qubes OS.

Each domain becomes a StandaloneVM with the given volumes. Qubes OS 4 restores it like its own domains. The same lines
always give the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from xml.etree.ElementTree import Element, SubElement, indent

from qbtools.domains import names, safexml
from qbtools.domains.lines import read_fields
from qbtools.errors import Damaged, Refused
from qbtools.formats.chunks import MAX_METADATA
from qbtools.lean import NamedTuple
from qbtools.streams import Reader

# qubes.app.Qubes.load_initial_values (August 2026): index, colour and name of the labels that every Qubes OS has.
_LABELS = (
    ("0xcc0000", "red"),
    ("0xf57900", "orange"),
    ("0xedd400", "yellow"),
    ("0x73d216", "green"),
    ("0x555555", "gray"),
    ("0x3465a4", "blue"),
    ("0x75507b", "purple"),
    ("0x000000", "black"),
)
_LABEL = "red"
_ADMIN_LABEL = "black"
_CLASS = "StandaloneVM"
_POOL = "varlibqubes"

RESTORED = ("root", "private")
"""The volumes of a new StandaloneVM: Qubes OS restores no other."""

# What tar (header, padding, two zero blocks) may add to the compressed text.
_WRAPPING = 4096


class NewVolume(NamedTuple):
    """A volume to save. size, data: its bytes, and the bytes in use, 0 <= data <= size < 2^63."""

    name: str
    size: int
    data: int


Wanted = dict[str, dict[str, NewVolume]]
"""The volumes of each domain by name, in the order in which they first occurred. All names are checked."""


def read_wanted(reader: Reader, warn: Callable[[str], None]) -> Wanted:
    """The lines DOMAIN, VOLUME, SIZE and maybe DATA (tab-separated; bytes) up to EOF, grouped by domain.

    Damaged for a malformed line, an invalid or reserved name, a volume that occurs twice, and if there is no line.
    """
    wanted: Wanted = {}
    for number, fields in read_fields(reader):
        if len(fields) not in (3, 4):
            raise Damaged(f"line {number} is not DOMAIN, VOLUME, SIZE, separated by tabs")
        domain, name = fields[:2]
        if problem := names.new_domain_problem(domain):
            raise Damaged(f"line {number}: cannot save a domain as {domain}: {problem}")
        if problem := names.volume_problem(name):
            raise Damaged(f"line {number}: cannot save a volume as {name}: {problem}")
        size, data = names.number(fields[2]), names.number(fields[-1])
        if size is None or data is None or data > size:
            raise Damaged(f"line {number}: not a size in bytes: {' '.join(fields[2:])}")
        volumes = wanted.setdefault(domain, {})
        if name in volumes:
            raise Damaged(f"line {number}: the volume {name} of {domain} occurs twice")
        if name not in RESTORED:
            warn(f"Qubes OS will not restore the volume {name} of {domain}, only {' and '.join(RESTORED)}")
        volumes[name] = NewVolume(name, size, data)
    if not wanted:
        raise Damaged(f"{reader.name} has no volume")
    return wanted


def compose(wanted: Wanted, numbers: Mapping[str, int] | None = None) -> bytes:
    """The qubes.xml: ASCII, without XML declaration. A domain gets the path `vmN/`.

    N is its number in numbers, by its name; None: its place in wanted, from 1.
    Refused if it would be larger than readers accept.
    """
    root = Element("qubes")
    domains = add_domains(root)
    for place, (name, volumes) in enumerate(wanted.items(), 1):
        qid = place if numbers is None else numbers[name]
        size = str(sealed_bound(volumes.values()))
        features = {"backup-content": "1", "backup-path": f"vm{qid}/", "backup-size": size}
        add_domain(domains, qid, name, {volume.name: volume.size for volume in volumes.values()}, features)
    indent(root)
    return bounded(root, len(wanted))


def bounded(root: Element, domains: int) -> bytes:
    """The metadata of that many domains as a document. Refused if it is larger than readers accept."""
    if safexml.parts(root) > safexml.MAX_PARTS:
        raise Refused(f"{domains} domains are too many: the metadata has at most {safexml.MAX_PARTS} parts")
    data = safexml.serialise(root)
    if len(data) > safexml.MAX_SIZE or len(zlib.compress(data)) + _WRAPPING > MAX_METADATA:
        raise Refused(f"{domains} domains are too many: Qubes OS reads 1 MiB of compressed metadata at most")
    return data


def add_domains(root: Element) -> Element:
    """Adds everything that compose() puts around domains to an empty root. Returns the element for them, with dom0."""
    add_labels(root)
    pools = SubElement(root, "pools")
    SubElement(pools, "pool", name=_POOL, dir_path="/var/lib/qubes", driver="file-reflink", revisions_to_keep="1")
    SubElement(root, "properties")
    domains = SubElement(root, "domains")
    _domain(domains, 0, names.ADMIN_CLASS, {"label": _ADMIN_LABEL}, {"backup-content": ""})
    return domains


def add_domain(
    domains: Element, qid: int, name: str, sizes: Mapping[str, int | None], features: Mapping[str, str]
) -> Element:
    """Adds a StandaloneVM to the result of add_domains(). sizes: of each volume, None if it is not known."""
    element = _domain(domains, qid, _CLASS, {"label": _LABEL, "name": name, "qid": str(qid)}, features)
    _volume_config(element, name, sizes)
    return element


def add_labels(root: Element) -> None:
    """Adds the labels that every Qubes OS has to the root of a qubes.xml."""
    labels = SubElement(root, "labels")
    for index, (colour, name) in enumerate(_LABELS, 1):
        SubElement(labels, "label", id=f"label-{index}", color=colour).text = name


def _domain(
    parent: Element, qid: int, kind: str, properties: Mapping[str, str], features: Mapping[str, str]
) -> Element:
    domain = SubElement(parent, "domain", {"id": f"domain-{qid}", "class": kind})
    for tag, part in (("property", properties), ("feature", features)):
        table = SubElement(domain, "properties" if tag == "property" else "features")
        for name, text in part.items():
            SubElement(table, tag, name=name).text = text or None
    SubElement(domain, "devices", {"class": "pci"})
    SubElement(domain, "tags")
    return domain


def _volume_config(domain: Element, name: str, sizes: Mapping[str, int | None]) -> None:
    config = SubElement(domain, "volume-config")
    for volume, size in sizes.items():
        attributes = {
            "name": volume,
            "pool": _POOL,
            "vid": f"appvms/{name}/{volume}",
            "revisions_to_keep": "1" if volume == "private" else "0",
            "rw": "True",
            "save_on_stop": "True",
        }
        if size is not None:
            attributes["size"] = str(size)
        SubElement(config, "volume", attributes)


def sealed_bound(volumes: Iterable[NewVolume]) -> int:
    """An upper bound for the bytes of these volumes in an archive, compressed and sealed. Qubes OS uses it as a quota.

    For every compressor: (data + sparse map) · 1.01 + 1 MiB for each.
    """
    total = 0
    for volume in volumes:
        # A hole in the map has at least 64 KiB, an entry at most 40 bytes, so the whole size is always enough.
        entries = min(1 << 20, volume.data // 512, (volume.size - volume.data) >> 16) + 2
        total += min(volume.data + 40 * entries, volume.size + 80) * 101 // 100 + (1 << 20)
    return total
