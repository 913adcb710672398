"""Metadata of invented domains, for tests of domains."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from qbtools.domains import safexml
from qbtools.domains.qubesxml import Metadata

LABELS = ("red", "orange", "black")
PRIVATE = {"name": "private", "pool": "lvm", "vid": "q/vm-x-private", "size": "2147483648", "save_on_stop": "True"}


def vm(
    name: str,
    kind: str = "AppVM",
    *,
    saved: bool = True,
    label: str = "red",
    volumes: tuple[dict[str, str], ...] = (PRIVATE,),
    backends: tuple[str, ...] = (),
    features: dict[str, str] | None = None,
    more: str = "",
    **properties: str,
) -> str:
    """One domain. saved: it is in the archive. backends: of one device each. more: XML that is put into it."""
    path = f"vm{sum(ord(c) * 131**i for i, c in enumerate(name)) % 10**9 + 1}/"
    told = {"backup-content": "1", "backup-path": path} if saved else {"backup-content": ""}
    table = {"name": name, "label": label, **properties}
    parts = [f"<property name={quoteattr(key)}>{escape(text)}</property>" for key, text in table.items()]
    told_features = {**told, **(features or {})}.items()
    noted = [f"<feature name={quoteattr(key)}>{escape(text)}</feature>" for key, text in told_features]
    disks = [f"<volume {' '.join(f'{key}={quoteattr(text)}' for key, text in one.items())}/>" for one in volumes]
    devices = [f"<device backend-domain={quoteattr(backend)} id='00_14.0'/>" for backend in backends]
    return (
        f"<domain id='domain-5' class='{kind}'><properties>{''.join(parts)}</properties>"
        f"<features>{''.join(noted)}</features><devices class='pci'>{''.join(devices)}</devices>"
        f"<tags/><volume-config>{''.join(disks)}</volume-config>{more}</domain>"
    )


def template(name: str, **more: object) -> str:
    """A TemplateVM."""
    return vm(name, "TemplateVM", **more)  # type: ignore[arg-type]


def network(name: str, **more: object) -> str:
    """An AppVM that provides network."""
    return vm(name, provides_network="True", **more)  # type: ignore[arg-type]


def disposable(name: str, **more: object) -> str:
    """An AppVM that is a template for DispVMs."""
    return vm(name, template_for_dispvms="True", **more)  # type: ignore[arg-type]


def document(
    *domains: str, labels: tuple[str, ...] = LABELS, pools: tuple[str, ...] = (), properties: str = ""
) -> bytes:
    """A qubes.xml of these and dom0."""
    table = "".join(f"<label id='label-{i}' color='0x0'>{escape(name)}</label>" for i, name in enumerate(labels, 1))
    known = "".join(f"<pool name={quoteattr(name)} driver='x'/>" for name in pools)
    admin = f"<domain class='AdminVM'><properties><property name='label'>{labels[-1]}</property></properties></domain>"
    return (
        f"<qubes><labels>{table}</labels><pools>{known}</pools><properties>{properties}</properties>"
        f"<domains>{admin}{''.join(domains)}</domains></qubes>"
    ).encode()


def metadata(*domains: str, **more: object) -> Metadata:
    """The same, read."""
    return Metadata(safexml.parse(document(*domains, **more)))  # type: ignore[arg-type]
