"""Metadata of Qubes OS 2 to 3.2: how each class and attribute is converted, and what is refused."""

from __future__ import annotations

import io
from xml.sax.saxutils import quoteattr

import pytest

from qbtools.domains import arrivals, inventory, older, safexml
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.errors import Damaged
from qbtools.streams import Reader


def element(tag: str, name: str, qid: int | str, saved: str | None = None, **more: str) -> str:
    attributes = {"name": name, "qid": str(qid), "label": "red", "template_qid": "none"}
    if saved is not None:
        attributes |= {"backup_content": "True", "backup_path": saved, "backup_size": "77"}
    attributes |= more
    return f"<{tag} {' '.join(f'{key}={quoteattr(value)}' for key, value in attributes.items())}/>"


ADMIN = element("QubesAdminVm", "dom0", 0, label="black")
TEMPLATE = element("QubesTemplateVm", "fedora", 1)


def read(*elements: str, admin: str = ADMIN + TEMPLATE, attributes: str = "") -> Metadata:
    text = f"<QubesVmCollection {attributes}>{admin}{''.join(elements)}</QubesVmCollection>"
    return Metadata(safexml.parse(text.encode()))


def one(tag: str = "QubesAppVm", **more: str) -> Domain:
    """The only domain of a collection with this element."""
    return next(domain for domain in read(element(tag, "it", 9, **more)).domains if domain.name == "it")


@pytest.mark.parametrize(
    ("tag", "template", "kind", "volumes", "base"),
    [
        ("QubesAppVm", "1", "AppVM", ["private"], "private.img"),
        ("QubesAppVm", "none", "StandaloneVM", ["root", "private"], "private.img"),
        ("QubesHVm", "1", "AppVM", ["private"], "private.img"),
        ("QubesHVm", "none", "StandaloneVM", ["root", "private"], "private.img"),
        ("QubesNetVm", "1", "AppVM", ["private"], "private.img"),
        ("QubesProxyVm", "1", "AppVM", ["private"], "private.img"),
        ("QubesTemplateVm", "none", "TemplateVM", ["root", "private"], "."),
        ("QubesTemplateHVm", "none", "TemplateVM", ["root", "private"], "."),
    ],
)
@pytest.mark.parametrize("path", ["vm9", "appvms/it", "servicevms/it", "vm-templates/other-name"])
def test_classes(tag: str, template: str, kind: str, volumes: list[str], base: str, path: str) -> None:
    domain = one(tag, template_qid=template, saved=path)
    assert (domain.kind, domain.path, domain.label) == (kind, f"{path}/", "red")
    assert [volume.name for volume in domain.volumes()] == ["root", "private", "volatile"]
    found = inventory.entries_of(domain)
    assert [entry.volume for entry in found] == volumes
    assert found[-1] == Entry("it", kind, "private", f"{path}/{base}", None)
    for entry in found:
        assert Entry.from_fields(entry.to_line().rstrip("\n").split("\t")) == entry
        assert entry.path == f"{path}/"


def test_a_disposable() -> None:
    assert one("QubesDisposableVm", template_qid="1").kind == "DispVM"


def test_dom0() -> None:
    saved = element("QubesAdminVm", "dom0", 0, "dom0-home/user", label="black")
    assert inventory.entries(read(admin=saved)) == [Entry("dom0", "AdminVM", None, "dom0-home/user", None)]
    dom0 = read(admin=TEMPLATE).domains[0]  # as in Qubes OS 2
    assert (dom0.name, dom0.kind, dom0.label, dom0.path) == ("dom0", "AdminVM", "black", None)


def test_what_is_not_saved() -> None:
    for more in ({}, {"backup_content": "False", "backup_path": "vm9"}, {"backup_content": "False"}):
        assert one(**more).path is None
    assert inventory.entries(read()) == []


@pytest.mark.parametrize(
    ("attributes", "properties"),
    [
        ({}, {}),
        ({"vcpus": "2", "memory": "400", "maxmem": "4000", "debug": "False"}, {}),
        ({"vcpus": "3", "maxmem": "1535"}, {"vcpus": "3", "maxmem": "1535"}),
        ({"include_in_backups": "False", "autostart": "True"}, {"include_in_backups": "False", "autostart": "True"}),
        ({"mac": "00:16:3E:5E:6C:55"}, {"mac": "00:16:3E:5E:6C:55"}),
        ({"kernel": "4.4"}, {}),
        ({"kernel": "4.4", "uses_default_kernel": "True"}, {}),
        ({"kernel": "4.4", "uses_default_kernel": "False"}, {"kernel": "4.4"}),
        ({"kernel": "None", "uses_default_kernel": "False"}, {"kernel": ""}),
        ({"kernelopts": "nopat x", "uses_default_kernelopts": "False"}, {"kernelopts": "nopat x"}),
        ({"netvm_qid": "1"}, {}),
        ({"netvm_qid": "1", "uses_default_netvm": "True"}, {}),
        ({"netvm_qid": "1", "uses_default_netvm": "False"}, {"netvm": "fedora"}),
        ({"netvm_qid": "none", "uses_default_netvm": "False"}, {"netvm": ""}),
        ({"netvm_qid": "99", "uses_default_netvm": "False"}, {"netvm": ""}),
    ],
)
def test_properties(attributes: dict[str, str], properties: dict[str, str]) -> None:
    fixed = {"label": "red", "name": "it", "qid": "9", "template": "fedora"}
    assert one(template_qid="1", **attributes).properties == fixed | properties


def test_properties_of_classes() -> None:
    for tag in ("QubesHVm", "QubesTemplateHVm"):
        for template in ("none", "1"):
            found = one(tag, template_qid=template, kernel="4.4", uses_default_kernel="False")
            assert (found.properties["virt_mode"], found.properties["kernel"]) == ("hvm", "")
            assert found.features == {"linux-stubdom": "", "backup-content": ""}
    agents = {"qrexec": "1", "gui": "1", "backup-content": ""}
    assert one("QubesTemplateVm").features == one("QubesAppVm").features == agents
    assert one("QubesAppVm", template_qid="1").features == {"backup-content": ""}
    net = one("QubesNetVm", template_qid="1", netvm_qid="1", uses_default_netvm="False").properties
    assert (net["netvm"], net["provides_network"]) == ("", "True")
    proxy = one("QubesProxyVm", template_qid="1", netvm_qid="1", uses_default_netvm="False").properties
    assert (proxy["netvm"], proxy["provides_network"]) == ("fedora", "True")
    assert "template" not in one().properties


def test_features() -> None:
    services = "{'meminfo-writer': False, u'ntpd': True, 'qubes-update-check': True}"
    assert one("QubesNetVm", saved="vm9", services=services, internal="True").features == {
        "internal": "1",
        "service.meminfo-writer": "",
        "service.ntpd": "1",
        "check-updates": "1",
        "backup-content": "1",
        "backup-path": "vm9/",
        "backup-size": "77",
    }
    for nothing in ("", "{}", "None"):
        assert one("QubesNetVm", services=nothing).features == {"backup-content": ""}


def test_devices() -> None:
    domain = one(pcidevs="['02:00.0', u'0000:03:00.1']")
    assert [device.attrib for device in domain.element.findall("devices[@class='pci']/device")] == [
        {"backend-domain": "dom0", "id": "02_00.0"},
        {"backend-domain": "dom0", "id": "0000_03_00.1"},
    ]
    assert not domain.element.findall(".//option")
    loose = one(pcidevs="['02:00.0']", pci_strictreset="False").element.find("devices/device/option")
    assert loose is not None
    assert (loose.get("name"), loose.text) == ("no-strict-reset", "True")


def test_values_that_qubes_never_checked_are_passed_on() -> None:
    services = one("QubesNetVm", services="{'my service': True, 'a/b': 0, u'\\xe9': 1}").features
    assert services == {"service.my service": "1", "service.a/b": "", "service.é": "1", "backup-content": ""}
    for text, ids in (
        ("'02:00.0'", ["02_00.0"]),
        ("'02:00.0', 'AB:1f.7'", ["02_00.0", "AB_1f.7"]),
        ("none", []),
        ("['0000:02:00.0-1']", ["0000_02_00.0-1"]),
    ):
        assert [device.get("id") for device in one(pcidevs=text).element.iter("device")] == ids


@pytest.mark.parametrize("name", ["a.b", "vm.1", "x.img", "x.", "A-b.C_d", "a" * 31])
def test_names_that_there_were(name: str) -> None:
    domain = read(element("QubesAppVm", name, 9, f"appvms/{name}")).domains[-1]
    assert (domain.name, domain.path) == (name, f"appvms/{name}/")


def test_an_odd_name_does_not_stop_the_others() -> None:
    """Qubes OS 3.2 only warned when it read such a name."""
    text = element("QubesTemplateVm", "1st", 1, "vm-templates/1st") + element(
        "QubesAppVm", "work", 2, "appvms/work", template_qid="1"
    )
    warnings: list[str] = []
    root = safexml.parse(f"<QubesVmCollection>{text}</QubesVmCollection>".encode())
    found = Metadata(root, warnings.append).domains
    assert [(one.name, one.path) for one in found[1:]] == [("vm1st", "vm-templates/1st/"), ("work", "appvms/work/")]
    assert found[2].properties["template"] == "vm1st"
    assert len(warnings) == 1 and '"1st"' in warnings[0] and "vm1st" in warnings[0]


def test_globals() -> None:
    attributes = 'default_template="1" default_netvm="None" clockvm="99" default_kernel="4.4"'
    found = {p.get("name"): p.text for p in read(attributes=attributes).root.findall("properties/property")}
    assert found == {"default_template": "fedora", "default_netvm": None, "clockvm": None, "default_kernel": "4.4"}


def test_the_result_reads_as_its_own() -> None:
    """It is metadata of Qubes OS 4, but for paths that did not exist there."""
    metadata = read(element("QubesAppVm", "it", 9, "vm9", template_qid="1"))
    assert metadata.older
    again = Metadata(metadata.root)
    assert not again.older
    assert inventory.entries(again) == inventory.entries(metadata)


def test_classes_of_nobody() -> None:
    assert [domain.name for domain in read(element("QubesCowVm", "cow", 9)).domains] == ["dom0", "fedora"]
    with pytest.raises(Damaged, match="domain cow has an unknown class: QubesCowVm"):
        read(element("QubesCowVm", "cow", 9, "vm9"))


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([element("QubesAppVm", "it", "x")], "no number as qid"),
        ([element("QubesAppVm", "it", "-1")], "no number as qid"),
        ([element("QubesAppVm", "it", 1)], "two domains have the qid 1"),
        ([element("QubesAppVm", "fedora", 2)], "same name or backup-path: fedora"),
        ([element("QubesAppVm", "../it", 2)], "is called"),
        ([element("QubesAppVm", "-rf", 2)], "is called"),
        ([element("QubesAppVm", "dom0", 2)], "is called dom0"),
        ([element("QubesAppVm", "it", 2, label="pink")], "its label is not among the labels"),
        ([element("QubesAppVm", "it", 2, "vm2", template_qid="99")], "its template is the domain 99"),
        ([element("QubesAdminVm", "dom0", 2)], "same name or backup-path: dom0"),
        *(
            ([element("QubesAppVm", "it", 2, path)], "its backup-path is")
            for path in ("", "/", "../x", "appvms", "appvms/", "appvms/..", "appvms/a/b", "/appvms/a", "other/a", "vm0")
        ),
        ([element("QubesAppVm", "a", 2, "vm2"), element("QubesAppVm", "b", 3, "vm2")], "same name or backup-path"),
        *(
            ([element("QubesAppVm", "it", 2, **{name: value})], f"domain it: {name} is malformed")
            for name, good in (("services", "{'a': True}"), ("pcidevs", "['02:00.0']"))
            for value in (
                "x",
                "1",
                "__import__('os').system('id')",
                "{'a': open('/etc/passwd')}",
                "[" * 5000,
                "[" * 90 + "]" * 90,
                "-" * 16000 + "1",
                "(" * 8000 + ")" * 8000,
                "9" * 10000,
                "{" + "'a'," * 5000 + "}",
                "{1: True}",
                "['']",
                "{'': True}",
                "{'a\\n': True}",
                "{[]: 1}",
                "'\\x00'",
                good[:-1],
            )
        ),
    ],
)
def test_what_is_refused(elements: list[str], message: str) -> None:
    with pytest.raises(Damaged) as caught:
        read(*elements)
    assert message in caught.value.message


def test_no_domain() -> None:
    with pytest.raises(Damaged, match="qubes.xml has no domain"):
        read(admin="")


def test_a_literal_that_is_too_long() -> None:
    with pytest.raises(Damaged, match="services is malformed"):
        read(element("QubesAppVm", "it", 2, services="{" + " " * older.MAX_LITERAL + "}"))


def test_files_that_must_be_in_the_archive() -> None:
    """The one archive of a template contains both of its volumes; other files of older systems are known."""
    metadata = read(
        element("QubesTemplateVm", "tpl", 2, "vm-templates/tpl"),
        element("QubesAppVm", "work", 3, "appvms/work", template_qid="2"),
    )
    lines = [entry.to_line() for entry in inventory.entries(metadata)]
    came = ["came\tqubes.xml\t-\n", "came\tappvms/work/private.img\t5\n", "came\tappvms/work/icon.png\t-\n"]
    came += ["came\tappvms/work/apps\t-\n", "came\tvm-templates/tpl/.\t-\n", "end\n"]
    warnings: list[str] = []
    for known, text in ((None, lines + came), (inventory.entries(metadata), came)):
        assert arrivals.check(Reader(io.BytesIO("".join(text).encode())), warnings.append, known) == 5
    assert not warnings
    for missing in ("vm-templates/tpl/.", "appvms/work/private.img"):
        short = [line for line in lines + came if not line.startswith(f"came\t{missing}\t")]
        with pytest.raises(Damaged, match=missing):
            arrivals.check(Reader(io.BytesIO("".join(short).encode())), warnings.append)
    for other in ("appvms/other/private.img", "appvms/private.img", "vm-templates/work/private.img"):
        more = [*lines, *came[:-1], f"came\t{other}\t-\n", "end\n"]
        with pytest.raises(Damaged, match="belongs to no saved domain"):
            arrivals.check(Reader(io.BytesIO("".join(more).encode())), warnings.append)


def test_paths_of_version_3_are_none_of_version_4() -> None:
    metadata = read(element("QubesAppVm", "it", 9, "appvms/it", template_qid="1"))
    with pytest.raises(Damaged, match="its backup-path is"):
        Metadata(metadata.root)
