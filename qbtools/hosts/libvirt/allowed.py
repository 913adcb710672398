"""What a restore takes out of the XML of a domain that was in an archive: only what is in a list.

The XML is untrusted: it could name files of the host as disks, start programs, or pass devices through. So elements and
attributes that are not in the list are dropped, and so are values that have other characters than names and numbers
need. No value can be a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement

from qbtools.lean import NamedTuple

# PATH ATTRIBUTE… for each element. ATTRIBUTE=VALUE|VALUE allows only these values. TEXT: it has a text.
_LIST = """
. type=kvm|qemu
name TEXT
title TEXT
description TEXT
memory TEXT unit
currentMemory TEXT unit
vcpu TEXT placement=static current
iothreads TEXT
os firmware=efi|bios
os/type TEXT arch machine
os/boot dev=hd|cdrom|network|fd
os/bootmenu enable timeout
os/bios useserial rebootTimeout
os/firmware
os/firmware/feature name enabled
os/loader TEXT readonly secure type=pflash|rom stateless
features
features/acpi
features/apic eoi
features/pae
features/pmu state
features/vmport state
features/smm state
features/ioapic driver
features/kvm
features/kvm/hidden state
features/hyperv mode=custom|passthrough
features/hyperv/relaxed state
features/hyperv/vapic state
features/hyperv/spinlocks state retries
features/hyperv/vpindex state
features/hyperv/runtime state
features/hyperv/synic state
features/hyperv/stimer state
features/hyperv/stimer/direct state
features/hyperv/reset state
features/hyperv/vendor_id state value
features/hyperv/frequencies state
features/hyperv/reenlightenment state
features/hyperv/tlbflush state
features/hyperv/ipi state
features/hyperv/evmcs state
cpu mode=custom|host-model|host-passthrough|maximum match check migratable
cpu/model TEXT fallback vendor_id
cpu/vendor TEXT
cpu/topology sockets dies cores threads
cpu/feature policy name
cpu/cache level mode
cpu/numa
cpu/numa/cell id cpus memory unit
clock offset=utc|localtime|variable adjustment basis
clock/timer name present tickpolicy track mode frequency
on_poweroff TEXT
on_reboot TEXT
on_crash TEXT
pm
pm/suspend-to-mem enabled
pm/suspend-to-disk enabled
metadata
metadata/libosinfo:libosinfo xmlns:libosinfo=http://libosinfo.org/xmlns/libvirt/domain/1.0
metadata/libosinfo:libosinfo/libosinfo:os id
devices
devices/disk type device=disk|cdrom|floppy
devices/disk/driver cache io discard detect_zeroes queues iothread
devices/disk/target dev bus tray rotation_rate removable
devices/disk/readonly
devices/disk/serial TEXT
devices/disk/wwn TEXT
devices/disk/vendor TEXT
devices/disk/product TEXT
devices/controller type=ide|fdc|scsi|sata|usb|ccid|virtio-serial|pci index model ports vectors
devices/controller/driver queues cmd_per_lun max_sectors iothread
devices/controller/master startport
devices/controller/model name
devices/controller/target chassisNr chassis port slot busNr index hotplug
devices/interface type=network|bridge|user
devices/interface/mac address
devices/interface/source network bridge portgroup
devices/interface/model type
devices/interface/driver name=qemu|vhost queues
devices/interface/link state
devices/interface/mtu size
devices/serial type=pty
devices/serial/target type port
devices/serial/target/model name
devices/console type=pty
devices/console/target type port
devices/channel type=unix|spicevmc|pty
devices/channel/source mode=bind
devices/channel/target type=virtio name
devices/input type=tablet|mouse|keyboard bus model
devices/graphics type=vnc|spice autoport passwd passwdValidTo keymap defaultMode
devices/graphics/listen type=address address=127.0.0.1|::1
devices/graphics/image compression
devices/graphics/jpeg compression
devices/graphics/zlib compression
devices/graphics/playback compression
devices/graphics/streaming mode
devices/graphics/clipboard copypaste
devices/graphics/mouse mode
devices/graphics/filetransfer enable
devices/graphics/gl enable
devices/video
devices/video/model type ram vram vram64 vgamem heads primary blob
devices/video/model/acceleration accel2d accel3d
devices/video/model/resolution x y
devices/sound model
devices/sound/codec type
devices/audio id type=none|spice
devices/watchdog model action=reset|shutdown|poweroff|pause|none|inject-nmi
devices/memballoon model autodeflate freePageReporting
devices/memballoon/stats period
devices/rng model
devices/rng/rate bytes period
devices/rng/backend TEXT model=random
devices/tpm model
devices/tpm/backend type=emulator version persistent_state=yes|no
devices/tpm/backend/encryption secret
devices/tpm/backend/active_pcr_banks
devices/tpm/backend/active_pcr_banks/sha1
devices/tpm/backend/active_pcr_banks/sha256
devices/tpm/backend/active_pcr_banks/sha384
devices/tpm/backend/active_pcr_banks/sha512
devices/panic model
devices/hub type
devices/redirdev bus=usb type=spicevmc
devices/iommu model
devices/iommu/driver intremap caching_mode iotlb aw_bits eim
devices/vsock model
devices/vsock/cid auto=yes
"""
_ADDRESS = "type=pci|drive|usb|virtio-serial|isa domain bus slot function multifunction controller target unit port"
_EACH_DEVICE = {"address": _ADDRESS, "boot": "order", "acpi": "index", "alias": ""}

_FREE = ("name", "title", "description", "devices/graphics@passwd")
_VALUES = {
    "devices/rng/backend": ("/dev/urandom", "/dev/random"),
    **dict.fromkeys(("on_poweroff", "on_reboot", "on_crash"), ("destroy", "restart", "preserve")),
}
_KIND = ("type", "device", "mode", "bus", "model")
_PLAIN = re.compile(r"[A-Za-z0-9_.,:;+() -]{0,128}")
_LIBOSINFO = re.compile(r"https?://[a-z0-9./-]{1,100}")
_LONGEST = 4096
_LONGEST_NAME = 100

# Parts that the restore makes itself, or that have no effect: it is no loss that they are dropped.
_QUIET = {
    "uuid",
    "os/nvram",
    "devices/emulator",
    "devices/disk/source",
    "devices/disk/backingStore",
    "devices/disk/driver@name",
    "devices/disk/driver@type",
    "devices/graphics@port=-1",
    "devices/graphics@tlsPort=-1",
    "devices/graphics@listen=127.0.0.1",
    "devices/disk@snapshot",
    "devices/disk@model",
}


class Taken(NamedTuple):
    """element: what is allowed. dropped: names of the parts that are not, each once."""

    element: Element
    dropped: list[str]


def taken(untrusted: Element) -> Taken:
    """What is allowed of the XML of a domain. Its own element is not changed."""
    dropped: dict[str, None] = {}
    root = Element("domain")
    _take(untrusted, "", root, dropped)
    return Taken(root, list(dropped))


def _take(source: Element, path: str, made: Element, dropped: dict[str, None]) -> None:
    """Copies what is allowed in source, whose own path is allowed."""
    allowed = _TABLE[_row(path) or ""]
    for name, value in source.attrib.items():
        if name in allowed and _good(f"{path}@{name}", value, allowed[name]):
            made.set(name, value)
        else:
            _drop(dropped, f"{path}@{name}", value)
    if path in _TEXTS:
        made.text = (source.text or "").strip()
    for child in source:
        below = f"{path}/{child.tag}" if path else child.tag
        if _row(below) is None or not _whole(child, below):
            _drop(dropped, below, "")
        else:
            _take(child, below, SubElement(made, child.tag), dropped)


def _whole(element: Element, path: str) -> bool:
    """Whether the text of an element, and the attributes that say what it is, are allowed."""
    allowed = _TABLE[_row(path) or ""]
    kinds = [name for name in _KIND if name in allowed and name in element.attrib]
    good = all(_good(f"{path}@{name}", element.get(name, ""), allowed[name]) for name in kinds)
    if path not in _TEXTS or path == "os/loader":  # the caller looks at the path of a loader
        return good
    return good and _good(path, (element.text or "").strip(), _VALUES.get(path, ()))


def _good(what: str, value: str, values: Iterable[str]) -> bool:
    if values:
        return value in values
    if what in _FREE:
        return len(value) <= _LONGEST and all(char.isprintable() or char.isspace() for char in value)
    return (_LIBOSINFO if what.endswith("libosinfo:os@id") else _PLAIN).fullmatch(value) is not None


def _drop(dropped: dict[str, None], what: str, value: str) -> None:
    if not _QUIET & {what, f"{what}={value}"} and not what.endswith("/alias"):
        dropped[named(what.removeprefix("@"))] = None


def named(untrusted: str) -> str:
    """The name of a part for a message."""
    text = untrusted if untrusted.isascii() and untrusted.isprintable() else ascii(untrusted)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _row(path: str) -> str | None:
    """The path in the table that stands for this one; None if it is not allowed."""
    if path in _TABLE:
        return path
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "devices" and parts[2] in _EACH_DEVICE and parts[2] != "alias":
        return f"*/{parts[2]}"
    return None


def _attributes(words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    pairs = (word.partition("=") for word in words)
    return {name: tuple(values.split("|")) if values else () for name, _equal, values in pairs}


_TABLE = {line.split()[0].removeprefix("."): _attributes(line.split()[1:]) for line in _LIST.strip().splitlines()}
_TEXTS = {path for path, names in _TABLE.items() if names.pop("TEXT", None) is not None}
INTERFACES = _TABLE["devices/interface"]["type"]
"""The types of network interfaces that are allowed."""
_TABLE |= {f"*/{name}": _attributes(text.split()) for name, text in _EACH_DEVICE.items()}
