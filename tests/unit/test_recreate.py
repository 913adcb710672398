"""The documents from which a host creates a domain again."""

from __future__ import annotations

import time
from xml.etree.ElementTree import Element, canonicalize

import pytest
from machines import metadata, network, template, vm
from support import ROOT

from qbtools.domains import plan, recreate, safexml, trim
from qbtools.domains.defaults import Defaults
from qbtools.domains.plan import Options
from qbtools.domains.planlines import Plan, PlanLine
from qbtools.domains.qubesxml import Domain, Metadata

HOST = Metadata(safexml.parse((ROOT / "tests/vectors/metadata/host.xml").read_bytes()))
ARCHIVE = Metadata(safexml.parse(trim.trimmed(HOST, {one.name: [] for one in HOST.domains[1:]}).document))
NEW = metadata(
    template("fedora-42", saved=False),
    network("sys-firewall", saved=False, template="fedora-42"),
    network("sys-vpn", saved=False, template="fedora-42"),
    vm("work", saved=False),
    vm("sys-usb", saved=False),
    labels=("red", "black"),
    pools=("fast",),
)
DEFAULTS = Defaults("fedora-42", "sys-firewall", None, ("6.12",), ("fast",))


def planned(*include: str, **options: object) -> Plan:
    return plan.make(ARCHIVE, NEW, DEFAULTS, Options(include=include, **options))  # type: ignore[arg-type]


def line_of(found: Plan, name: str) -> PlanLine:
    return next(line for line in found.lines if line.domain == name)


def made(found: Plan, name: str, references: bool, unfinished: str | None = None) -> Domain:
    document = recreate.document(ARCHIVE, found, [line_of(found, name)], references, unfinished)
    read = Metadata(safexml.parse(document))
    admin, domain = read.domains
    assert (admin.name, admin.label, read.labels) == ("dom0", "black", ["red", "black"])
    assert domain.element.get("id") == "domain-1"
    return domain


def test_create_names_no_domain_but_the_template() -> None:
    found = made(planned("work", "fedora-41"), "work", False, "qbtools-mark")
    assert (found.name, found.label, found.kind) == ("work-1", "red", "AppVM")
    assert found.properties == {
        **{"label": "red", "name": "work-1", "template": "fedora-41", "guivm": "dom0", "memory": "600"},
        **{"mac": "00:16:3e:5e:6c:01", "kernelopts": 'a <b> "c" \r\td\ne', "someday": "ü"},
    }
    assert found.features == {"internal": "", "menu-items": "a.desktop b.desktop", "qbtools-unfinished": "qbtools-mark"}
    assert [device.get("backend-domain") for device in found.element.iter("device")] == ["dom0"]


def test_set_names_those_of_the_plan() -> None:
    found = made(planned("work", "fedora-41", "sys-vpn", "sys-usb"), "work", True)
    assert found.properties["netvm"] == "sys-vpn-1"
    assert found.properties["guivm"] == "dom0"
    assert "audiovm" not in found.properties and "kernel" not in found.properties
    assert [device.get("backend-domain") for device in found.element.iter("device")] == ["sys-usb-1", "dom0"]
    assert found.features == {"internal": "", "menu-items": "a.desktop b.desktop"}


def test_set_names_those_of_the_host() -> None:
    found = made(planned("work"), "work", True)
    assert (found.properties["template"], found.properties["netvm"]) == ("fedora-42", "sys-vpn")
    assert [device.get("backend-domain") for device in found.element.iter("device")] == ["sys-usb", "dom0"]


def test_the_volumes() -> None:
    found = made(planned("work"), "work", False)
    assert [volume.attrib for volume in found.element.iter("volume")] == [
        {"name": "root", "pool": "fast", "rw": "True", "snap_on_start": "True", "size": "21474836480"},
        {
            **{"name": "private", "pool": "fast", "revisions_to_keep": "1", "rw": "True", "save_on_stop": "True"},
            **{"size": "8589934592", "later": "x"},
        },
        {"name": "volatile", "pool": "fast", "rw": "True", "size": "10737418240"},
    ]


def test_unknown_parts_are_passed_on() -> None:
    def plain(element: Element) -> list[str]:
        kept = [*element.findall("tags"), *element.findall("later"), *element.findall("devices[@class='mic']")]
        return [canonicalize(safexml.serialise(one).decode(), strip_text=True) for one in kept]

    found = made(planned("work"), "work", True)
    assert len(plain(found.element)) == 3
    assert plain(found.element) == plain(HOST.by_name["work"].element)


def test_the_identity_is_not_copied() -> None:
    found = made(planned("fedora-41"), "fedora-41", True)
    assert found.properties == {"label": "black", "name": "fedora-41", "netvm": ""}


def test_the_time_grows_with_the_number_of_parts_and_not_with_its_square() -> None:
    count = 20_000
    properties = {f"p{at}vm": "nowhere" for at in range(count)}  # these name a domain that is not there
    features = {f"f{at}": "x" for at in range(count)}
    volumes = tuple({"name": f"v{at}", "pool": "fast"} for at in range(count))
    work = vm("work", backends=("nowhere",) * count, features=features, volumes=volumes, **properties)
    archive = metadata(template("fedora-42"), work, pools=("fast",))
    found = plan.make(archive, NEW, DEFAULTS, Options(ignore_missing=True))
    line = line_of(found, "work")
    began = time.process_time()
    document = recreate.document(archive, found, [line], True, None)
    assert time.process_time() - began < 5  # else a minute and more
    read = Metadata(safexml.parse(document)).domains[1]
    assert len(read.volumes()) == count
    assert read.features == features and not list(read.element.iter("device"))  # the three of an archive are left out
    assert len(read.properties) < 10


@pytest.mark.parametrize(("netvm", "expected"), [("default", None), (None, ""), ("sys-firewall", "sys-firewall")])
@pytest.mark.parametrize("archived", [{}, {"netvm": ""}, {"netvm": "sys-firewall"}])
def test_default_is_not_set_and_none_is_set_to_nothing(
    archived: dict[str, str], netvm: str | None, expected: str | None
) -> None:
    archive = metadata(vm("a", template="fedora-42", **archived))
    first = plan.make(archive, NEW, DEFAULTS, Options())
    written = first.lines[0].written._replace(netvm=netvm, default_dispvm=None, kernel=None)
    second = plan.check(archive, NEW, DEFAULTS, Options(), [written])
    document = recreate.document(archive, second, second.lines[:1], True, None)
    found = Metadata(safexml.parse(document)).by_name["a"]
    assert found.properties.get("netvm") == expected
    assert (found.properties["default_dispvm"], found.properties["kernel"]) == ("", "")


def test_one_without_template_has_no_such_property() -> None:
    archive = metadata(vm("a", "StandaloneVM", template="x"), vm("b", template="gone"))
    found = plan.make(archive, NEW, Defaults(), Options(ignore_missing=True))
    for line in found.lines:
        for references in (False, True):
            document = recreate.document(archive, found, [line], references, None)
            assert "template" not in Metadata(safexml.parse(document)).by_name[line.name].properties


def test_nothing_hides_in_a_second_part() -> None:
    """An archive may have several parts of a kind; their content is treated as if it were in the first."""
    more = (
        "<properties><property name='audiovm'>gone</property><property name='memory'>5</property></properties>"
        "<features><feature name='backup-x'>1</feature><feature name='qbtools-unfinished'>y</feature></features>"
    )
    archive = metadata(vm("a", "StandaloneVM", more=more))
    found = plan.make(archive, NEW, DEFAULTS, Options())
    document = recreate.document(archive, found, found.lines[:1], True, None)
    domain = Metadata(safexml.parse(document)).by_name["a"]
    assert domain.properties == {"name": "a", "label": "red", "memory": "5"}
    assert domain.features == {"backup-x": "1"}
    assert len(domain.element.findall("properties")) == 1


@pytest.mark.parametrize("references", [False, True])
def test_a_device_that_is_assigned_to_any_port_stays(references: bool) -> None:
    device = "<device backend-domain='*' id='*' mode='auto-attach' identity='1234:5678::u03'/>"
    for text in (device, device.replace("backend-domain='*' ", "")):
        archive = metadata(vm("a", "StandaloneVM", more=f"<devices class='usb'>{text}</devices>"))
        found = plan.make(archive, NEW, DEFAULTS, Options())
        assert not [note for note in found.lines[0].notes if "device" in note]
        document = recreate.document(archive, found, found.lines[:1], references, None)
        (kept,) = Metadata(safexml.parse(document)).by_name["a"].element.iter("device")
        assert kept.attrib == Element("device", dict(safexml.parse(text.encode()).attrib)).attrib


def test_the_archive_is_not_changed() -> None:
    before = safexml.serialise(ARCHIVE.root)
    found = planned()
    for line in found.lines:
        recreate.document(ARCHIVE, found, [line], True, "x")
    assert safexml.serialise(ARCHIVE.root) == before


def test_one_from_libvirt_keeps_its_own_name_and_its_uuid_unless_it_is_renamed() -> None:
    text = "<libvirt><domain><name>a b</name><uuid>u</uuid><memory>1</memory></domain></libvirt>"
    archive = metadata(vm("a-b"))
    archive.by_name["a-b"].element.append(safexml.parse(text.encode()))
    for rename, name, kept in (({}, "a-b", ["a b", "u", "1"]), ({"a-b": "web"}, "web", ["1", "web"])):
        found = plan.make(archive, NEW, DEFAULTS, Options(ignore_missing=True, rename=rename))
        document = recreate.document(archive, found, found.creates, True, None)
        domain = Metadata(safexml.parse(document)).by_name[name]
        assert [part.text for part in domain.element.iterfind("libvirt/domain/*")] == kept
