"""Reading qubes.xml: what is read from it, and what is refused."""

from __future__ import annotations

import io
from xml.etree.ElementTree import tostring

import pytest

from qbtools.domains import inventory, safexml
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged
from qbtools.streams import Reader

LABELS = '<labels><label id="label-1" color="0xcc0000">red</label><label id="label-8" color="0">black</label></labels>'
ADMIN = (
    '<domain id="domain-0" class="AdminVM"><properties><property name="label">black</property></properties></domain>'
)
SAVED = '<feature name="backup-content">1</feature><feature name="backup-path">{}</feature>'
PRIVATE = '<volume name="private" pool="lvm" vid="a/b" rw="True" save_on_stop="True" size="2147483648"/>'
ROOT = '<volume name="root" pool="lvm" size="10737418240" snap_on_start="True" source="x/y" vid="a/c"/>'


def domain(
    name: str = "work",
    path: str | None = "vm7/",
    volumes: str = ROOT + PRIVATE,
    kind: str = "AppVM",
    label: str = "label-1",
    more: str = "",
) -> str:
    features = '<feature name="backup-content"/>' if path is None else SAVED.format(path)
    return (
        f'<domain id="domain-7" class="{kind}"><properties><property name="label">{label}</property>'
        f'<property name="name">{name}</property>{more}</properties><features>{features}</features>'
        f"<volume-config>{volumes}</volume-config></domain>"
    )


def document(*domains: str, admin: str = ADMIN, labels: str = LABELS, root: str = "<qubes>") -> bytes:
    text = f"{root}{labels}<pools/><properties/><domains>{admin}{''.join(domains)}</domains></qubes>"
    return text.encode()


def read(data: bytes) -> Metadata:
    return Metadata(safexml.load(Reader(io.BytesIO(data))))


def refusal(data: bytes) -> str:
    with pytest.raises(Damaged) as caught:
        inventory.entries(read(data))
    return caught.value.message


def test_only_what_is_saved_is_listed() -> None:
    data = document(domain(), domain("other", None), domain("tpl", "vm3/", ROOT, "TemplateVM"))
    metadata = read(data)
    assert [one.name for one in metadata.domains] == ["dom0", "work", "other", "tpl"]
    assert [one.name for one in metadata.saved()] == ["work", "tpl"]
    assert inventory.entries(metadata) == [
        Entry("work", "AppVM", "private", "vm7/private.img", 2147483648),
        Entry("tpl", "TemplateVM", None, "vm3/empty", 0),
    ]


def test_what_a_domain_is() -> None:
    more = '<property name="netvm"/><property name="vcpus">2</property>'
    found = read(document(domain(more=more))).domains[1]
    assert (found.kind, found.label, found.path) == ("AppVM", "red", "vm7/")
    assert found.properties == {"label": "label-1", "name": "work", "netvm": "", "vcpus": "2"}
    assert [(one.name, one.size, one.save_on_stop) for one in found.volumes()] == [
        ("root", 10737418240, False),
        ("private", 2147483648, True),
    ]


def test_a_label_may_be_named_by_its_text() -> None:
    assert read(document(domain(label="red"))).domains[1].label == "red"


def test_a_volume_without_size_has_none() -> None:
    volume = '<volume name="private" save_on_stop="True"/>'
    (entry,) = inventory.entries(read(document(domain(volumes=volume))))
    assert entry.to_line() == "work\tAppVM\tprivate\tvm7/private.img\t-\n"


def test_the_home_of_dom0() -> None:
    admin = ADMIN.replace("</domain>", f"<features>{SAVED.format('dom0-home/user')}</features></domain>")
    (entry,) = inventory.entries(read(document(admin=admin)))
    assert entry.to_line() == "dom0\tAdminVM\t-\tdom0-home/user\t-\n"


def test_what_is_not_understood_is_still_in_the_tree() -> None:
    more = '<property name="weird">ü &amp; &lt;</property>'
    data = document(domain(more=more).replace("</domain>", '<later x="1"><y>z</y></later></domain>'))
    assert read(tostring(read(data).root, encoding="utf-8")).domains[1].properties["weird"] == "ü & <"
    assert b'<later x="1"><y>z</y></later>' in tostring(read(data).root)


@pytest.mark.parametrize("path", ["vm7", "vm0/", "vm07/", "/vm7/", "../vm7/", "vm7/../", "vm7/x/", "appvms/work/", ""])
def test_paths_that_are_refused(path: str) -> None:
    assert "backup-path" in refusal(document(domain(path=path)))


@pytest.mark.parametrize("path", ["vm0/", "dom0-home", "dom0-home/", "dom0-home/..", "dom0-home/-x", "dom0-home/a/b"])
def test_homes_that_are_refused(path: str) -> None:
    admin = ADMIN.replace("</domain>", f"<features>{SAVED.format(path)}</features></domain>")
    assert "not dom0-home/USER" in refusal(document(admin=admin))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "-rf",
        "",
        "a b",
        "a/b",
        ".",
        "..",
        ".a",
        "a\tb",
        "a\nb",
        "1a",
        "ä",
        "a" * 32,
        "work\n",
        "$(id)",
        "a\u202eb",
    ],
)
def test_names_that_are_refused(name: str) -> None:
    assert "a domain is called" in refusal(document(domain(name=name)))


@pytest.mark.parametrize(
    "name", ["a.b", "vm.1", "a..b", "x.", "x.img", "work.mail", "W", "disp1234", "none", "x-dm", "a" * 31, "qubes.xml"]
)
def test_names_that_some_qubes_os_allows(name: str) -> None:
    """Names of a saved domain, and of one that is only listed."""
    found = read(document(domain(name=name), domain("other", "vm8/"))).domains
    assert [one.name for one in found] == ["dom0", name, "other"]
    (entry,) = inventory.entries(read(document(domain(name=name))))
    assert Entry.from_fields(entry.to_line().rstrip("\n").split("\t")) == entry
    assert [one.name for one in read(document(domain(name=name, path=None), domain("other"))).saved()] == ["other"]


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("../x", "vm.._x"),
        ("-rf", "vm-rf"),
        ("a b", "a_b"),
        ("1a", "vm1a"),
        ("ä", "vm_"),
        ("a" * 32, "a" * 24 + "-1"),
        ("dom0", "dom0-1"),
        ("a\u202eb", "a_b"),
    ],
)
def test_an_unusable_name_does_not_stop_the_others(name: str, made: str) -> None:
    more = f'<property name="netvm">{name}</property>'
    device = f'<devices class="pci"><device backend-domain="{name}" id="x"/></devices></domain>'
    data = document(domain(name=name), domain("other", "vm8/", more=more).replace("</domain>", device))
    warnings: list[str] = []
    found = Metadata(safexml.parse(data), warnings.append)
    assert [(one.name, one.path) for one in found.saved()] == [(made, "vm7/"), ("other", "vm8/")]
    named = name if name == "dom0" else made
    assert found.by_name["other"].properties["netvm"] == named
    assert [one.get("backend-domain") for one in found.root.iter("device")] == [named]
    assert len(warnings) == 1 and f'"{name}"' in warnings[0] and warnings[0].endswith(f"the domain is renamed {made}")


def test_names_that_are_made_up_are_all_different() -> None:
    odd = ["é", "è", "è-1", "vm_-2", "ê", "ë-1", "a" * 24 + "é" * 9, "a" * 24 + "è" * 9, "a" * 24 + "-1"]
    found = Metadata(
        safexml.parse(document(*(domain(name, f"vm{at}/") for at, name in enumerate(odd, 1)))), lambda _: None
    )
    assert len({one.name for one in found.domains}) == len(odd) + 1
    assert {"vm_-2", "a" * 24 + "-1"} <= found.by_name.keys()


@pytest.mark.parametrize("pair", [("a b", "a b"), ("work", "work"), ("", "work")])
def test_names_that_are_damage_all_the_same(pair: tuple[str, str]) -> None:
    data = document(domain(pair[0]), domain(pair[1], "vm8/"))
    with pytest.raises(Damaged):
        Metadata(safexml.parse(data), lambda _: None)


@pytest.mark.parametrize("name", ["../x", "-", "-rf", "", "a b", "a/b", "a.img", "a\tb", "a\nb", "ä", "a" * 85])
def test_volumes_that_are_refused(name: str) -> None:
    name = name.replace("\t", "&#9;").replace("\n", "&#10;")
    assert "a volume is called" in refusal(document(domain(volumes=f'<volume name="{name}" save_on_stop="True"/>')))


@pytest.mark.parametrize(
    "size", ["", "-1", "+1", "01", "1.0", "1e3", "0x10", " 1", "9223372036854775808", "9" * 40, "١"]
)
def test_sizes_that_are_refused(size: str) -> None:
    volume = f'<volume name="private" save_on_stop="True" size="{size}"/>'
    assert "is not a number" in refusal(document(domain(volumes=volume)))


def test_the_largest_size() -> None:
    volume = f'<volume name="private" save_on_stop="True" size="{(1 << 63) - 1}"/>'
    assert inventory.entries(read(document(domain(volumes=volume))))[0].size == (1 << 63) - 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the metadata is empty"),
        (b" \n", "the metadata is empty"),
        (b"<qubes>", "not well-formed: line 1: no element found"),
        (document()[:-5], "not well-formed: line 1: unclosed token"),
        (b"garbage", "not well-formed"),
        (document() + b"<x/>", "junk after document element"),
        (b"<qubes>\xff</qubes>", "not well-formed"),
        (b"<qubes>\0</qubes>", "not UTF-8"),
        (b"<qubes>&x;</qubes>", "undefined entity"),
        (b"<!DOCTYPE qubes><qubes/>", "document type"),
        (b'<!DOCTYPE q [<!ENTITY a "b">]><qubes>&a;</qubes>', "document type"),
        (b'<!DOCTYPE q SYSTEM "file:///etc/passwd"><qubes/>', "document type"),
        ("<qubes/>".encode("utf-16"), "not UTF-8"),
        (b"<html/>", 'its root is "html"'),
        (document(root='<qubes version="4.0">'), 'unknown version "4.0"'),
        (document(labels=""), "no part labels"),
        (document(labels=LABELS * 2), "more than one part labels"),
        (document().replace(b"<properties/><domains>", b"<domains>"), "no part properties"),
        (f"<qubes>{LABELS}<properties/></qubes>".encode(), "no part domains"),
        (document(admin=""), "no domain dom0"),
        (document(admin=ADMIN * 2), "same name or backup-path: dom0"),
        (document(domain("dom0")), "of class AppVM is called dom0"),
        (document(admin=ADMIN.replace("black", "pink")), 'dom0: its label is not among the labels: "pink"'),
        (document(domain(label="label-2")), "work: its label is not among the labels"),
        (document(domain(), domain(path="vm8/")), "same name or backup-path: work"),
        (document(domain(), domain("other")), "same name or backup-path: vm7/"),
        (document(domain(kind="App VM")), "has the class"),
        (document(domain(kind="")), "has the class"),
        (document(domain(volumes=PRIVATE * 2)), "the volume private occurs twice"),
        (document(domain(more='<property name="name">x</property>')), 'the property "name" occurs twice'),
        (document(domain(more="<property>x</property>")), "a property has no name"),
        (document(domain().replace("</features>", SAVED.format("vm9/") + "</features>")), "occurs twice"),
        (
            document(domain().replace(SAVED.format("vm7/"), SAVED[: SAVED.index("/feature>") + 9])),
            'its backup-path is ""',
        ),
        (document(domain(volumes=PRIVATE.replace("True", "yes"))), "neither True nor False"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    assert message in refusal(data)


def test_version_3_0_is_read() -> None:
    assert read(document(root='<qubes version="3.0">')).domains


def test_billion_laughs() -> None:
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    data = f'<!DOCTYPE q [<!ENTITY l0 "lol">{laughs}]><qubes>&l9;</qubes>'.encode()
    assert "document type" in refusal(data)


@pytest.mark.parametrize(
    ("begin", "many", "count", "end", "message"),
    [
        (b'<qubes a="', b"x", 10 << 20, b'"/>', "an attribute of more than"),
        (b"<qubes>", b"x", 10 << 20, b"</qubes>", "a text of more than"),
        (b"<qubes>", b"x&amp;", 1 << 20, b"</qubes>", "a text of more than"),
        (b"", b"<a>", 100, b"</a>" * 100, "nested more than"),
        (b"", b"<a>", 1000000, b"", "nested more than"),
        (b"<qubes>", b"<a/>", 1 << 20, b"</qubes>", "elements"),
        (b"<qubes ", b"a='' ", 1 << 23, b"/>", "elements and attributes"),
        (b"<qubes>", b"<a b='' c='' d=''/>", 1 << 17, b"</qubes>", "elements and attributes"),
        (b"<qubes>", b" ", 64 << 20, b"</qubes>", "more than 67108864 bytes"),
    ],
    ids=["attribute", "text", "text in pieces", "deep", "very deep", "many", "attributes", "of both", "large"],
)
def test_bounds(begin: bytes, many: bytes, count: int, end: bytes, message: str) -> None:
    assert message in refusal(begin + many * count + end)


def test_a_long_name_does_not_fill_the_screen() -> None:
    assert len(refusal(document(domain(name="a" * 100000)))) < 300


@pytest.mark.parametrize(
    "line",
    [
        "work\tAppVM\tprivate\tvm7/private.img",
        "work\tAppVM\tprivate\tvm7/private.img\t1\t2",
        "../x\tAppVM\tprivate\tvm7/private.img\t1",
        "work\tApp VM\tprivate\tvm7/private.img\t1",
        "work\tAppVM\t-x\tvm7/-x.img\t1",
        "work\tAppVM\tprivate\tvm7/root.img\t1",
        "work\tAppVM\tprivate\tvm0/private.img\t1",
        "work\tAppVM\tprivate\tvm7/../private.img\t1",
        "work\tAppVM\tprivate\tvm7/private.img\t",
        "work\tAppVM\tprivate\tvm7/private.img\t01",
        "work\tAppVM\t-\tvm7/-.img\t1",
        "dom0\tAdminVM\troot\tvm7/root.img\t1",
        "dom0\tAdminVM\t-\tdom0-home/..\t-",
    ],
)
def test_lines_that_are_no_entry(line: str) -> None:
    with pytest.raises(Damaged):
        Entry.from_fields(line.split("\t"))


@pytest.mark.parametrize(
    "entry",
    [
        Entry("work", "AppVM", "private", "vm7/private.img", 5),
        Entry("work", "AppVM", None, "vm7/empty", 0),
        Entry("dom0", "AdminVM", None, "dom0-home/user", None),
    ],
)
def test_an_entry_through_its_line(entry: Entry) -> None:
    assert Entry.from_fields(entry.to_line().rstrip("\n").split("\t")) == entry
