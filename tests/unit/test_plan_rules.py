"""The rules of a restore plan: each is a table of the archive, the host, and the result."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from machines import PRIVATE, disposable, document, metadata, network, template, vm

from qbtools.domains import plan, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.plan import Options
from qbtools.domains.planlines import Plan, PlanLine
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Refused, UsageError

FEDORA = template("fedora-42", saved=False)
FIREWALL = network("sys-firewall", saved=False, template="fedora-42")
DVM = disposable("default-dvm", saved=False, template="fedora-42")
HOST = (FEDORA, FIREWALL, DVM)
DEFAULTS = Defaults("fedora-42", "sys-firewall", "default-dvm")


class Case(NamedTuple):
    """want: by domain and column what its line has; `problem` and `notes` as they are printed."""

    rule: str
    archive: tuple[str, ...]
    want: dict[str, dict[str, object]]
    host: tuple[str, ...] = HOST
    defaults: Defaults = DEFAULTS
    options: Options = Options()
    leftovers: tuple[str, ...] = ()


def cell(line: PlanLine, column: str) -> object:
    """The text of a column, or one of the notes."""
    if column == "notes":
        return list(line.notes)
    return line.problem if column == "problem" else getattr(line.written, column)


def made(case: Case, **host: object) -> Plan:
    return plan.make(metadata(*case.archive), metadata(*case.host, **host), case.defaults, case.options, case.leftovers)


def lines(found: Plan) -> dict[str, PlanLine]:
    return {line.domain: line for line in found.lines}


def hold(case: Case, **host: object) -> None:
    by_name = lines(made(case, **host))
    for domain, columns in case.want.items():
        assert {column: cell(by_name[domain], column) for column in columns} == columns, domain


def ids(cases: list[Case]) -> list[str]:
    return [case.rule for case in cases]


WORK = vm("work", template="debian-8")
RESERVED = ("none", "default", "x-dm", "Domain-0", "qubes.xml", "dom0-home")
DOTS = ("work.mail", "a..", "vm.1", "x.img", "vm-1")
GONE = "template: debian-8 → fedora-42"

TEMPLATES = [
    Case(
        "on the host with the same name",
        (vm("work", template="fedora-42"),),
        {"work": {"template": "fedora-42", "problem": None, "notes": []}},
    ),
    Case(
        "restored here",
        (WORK, template("debian-8")),
        {"work": {"template": "debian-8", "problem": None, "notes": []}, "debian-8": {"template": None}},
    ),
    Case(
        "restored here under its new name, though the host has one of the old",
        (WORK, template("debian-8")),
        {"work": {"template": "debian-8-1", "problem": None}, "debian-8": {"name": "debian-8-1"}},
        host=(*HOST, template("debian-8", saved=False)),
    ),
    Case(
        "the host's default in place of one that is missing",
        (WORK,),
        {"work": {"template": "fedora-42", "problem": None, "notes": [GONE]}},
    ),
    Case(
        "named by the user in place of one that is missing",
        (WORK, vm("disp", "DispVM", template="my-dvm")),
        {
            "work": {"template": "other", "notes": ["template: debian-8 → other"]},
            "disp": {"template": "default-dvm", "notes": ["template: my-dvm → default-dvm"]},
        },
        host=(*HOST, template("other", saved=False)),
        options=Options(default_template="other"),
    ),
    Case(
        "nothing in place of one that is missing",
        (WORK, vm("disp", "DispVM", template="my-dvm")),
        {
            "work": {"template": "debian-8", "problem": "template: debian-8 does not exist"},
            "disp": {"template": "my-dvm", "problem": "template: my-dvm does not exist"},
        },
        options=Options(default_template="none"),
    ),
    Case(
        "the host has no default",
        (WORK,),
        {"work": {"action": "create", "problem": "template: debian-8 does not exist"}},
        defaults=Defaults(),
    ),
    Case(
        "the host's default is not a template",
        (WORK,),
        {"work": {"problem": "template: debian-8 does not exist"}},
        defaults=Defaults(template="sys-firewall"),
    ),
    Case(
        "on the host under that name, but no template",
        (WORK,),
        {"work": {"problem": "template: debian-8 is not a template"}},
        host=(vm("debian-8", "StandaloneVM", saved=False),),
        defaults=Defaults(),
    ),
    Case(
        "in the archive under that name, but no template",
        (WORK, vm("debian-8", "StandaloneVM")),
        {"work": {"problem": "template: debian-8 is not a template"}},
        defaults=Defaults(),
    ),
    Case(
        "excluded: its users are moved",
        (WORK, template("debian-8")),
        {"work": {"template": "fedora-42", "notes": [GONE]}, "debian-8": {"action": "skip", "problem": None}},
        options=Options(exclude=["debian-8"]),
    ),
    Case(
        "excluded: its users cannot be made",
        (WORK, template("debian-8")),
        {"work": {"problem": "template: debian-8 is not restored"}},
        options=Options(exclude=["debian-8"], default_template="none"),
    ),
    Case(
        "excluded, but the host has it",
        (WORK, template("debian-8")),
        {"work": {"template": "debian-8", "problem": None, "notes": []}},
        host=(template("debian-8", saved=False),),
        options=Options(exclude=["debian-8"], default_template="none"),
    ),
    Case(
        "broken itself: its users are moved",
        (WORK, template("debian-8")),
        {"work": {"template": "fedora-42", "problem": None}, "debian-8": {"problem": "name: debian-8 is taken"}},
        host=(*HOST, vm("debian-8", saved=False)),
        options=Options(no_rename=True),
    ),
    Case(
        "broken itself: its users are broken",
        (WORK, template("debian-8")),
        {"work": {"problem": "template: debian-8 cannot be restored"}},
        host=(*HOST, vm("debian-8", saved=False)),
        options=Options(no_rename=True, default_template="none"),
    ),
    Case(
        "not named at all",
        (vm("work"), vm("other", template="")),
        {
            "work": {"template": "fedora-42", "notes": ["template: default → fedora-42"]},
            "other": {"template": "fedora-42"},
        },
    ),
    Case(
        "of a class that has none it is not looked at",
        (vm("alone", "StandaloneVM", template="gone"), template("t", template="gone")),
        {"alone": {"template": None, "problem": None, "notes": []}, "t": {"template": None, "problem": None}},
    ),
    Case(
        "of a class that is not known",
        (vm("new", "OtherVM", template="gone"), vm("newer", "OtherVM")),
        {"new": {"template": "fedora-42"}, "newer": {"template": None, "problem": None}},
    ),
    Case(
        "a malformed name is none",
        (vm("work", template="../x"),),
        {
            "work": {
                "template": "fedora-42",
                "notes": ["template: ../x → fedora-42".replace("../x", "(a malformed name)")],
            }
        },
    ),
    Case(
        "a template that is still being made is none",
        (WORK,),
        {"work": {"template": "fedora-42", "notes": [GONE]}},
        host=(*HOST, template("debian-8", saved=False, features={"qbtools-unfinished": "qbtools-x"})),
    ),
    Case(
        "ignored when it is missing",
        (WORK,),
        {"work": {"template": None, "problem": None, "notes": ["template: debian-8 → none"]}},
        defaults=Defaults(),
        options=Options(ignore_missing=True),
    ),
]


@pytest.mark.parametrize("case", TEMPLATES, ids=ids(TEMPLATES))
def test_templates(case: Case) -> None:
    hold(case)


DISP = vm("disp", "DispVM", template="my-dvm")
DISPOSABLES = [
    Case(
        "its template is on the host",
        (DISP,),
        {"disp": {"template": "my-dvm", "problem": None}},
        host=(*HOST, disposable("my-dvm", saved=False, template="fedora-42")),
    ),
    Case(
        "on the host, without template_for_dispvms",
        (DISP,),
        {"disp": {"problem": "template: my-dvm is not a template for DispVMs"}},
        host=(vm("my-dvm", saved=False, template="fedora-42"),),
        defaults=Defaults(),
    ),
    Case(
        "on the host, with template_for_dispvms set to False",
        (DISP,),
        {"disp": {"problem": "template: my-dvm is not a template for DispVMs"}},
        host=(vm("my-dvm", saved=False, template_for_dispvms="False"),),
        defaults=Defaults(),
    ),
    Case(
        "a TemplateVM is none",
        (DISP,),
        {"disp": {"problem": "template: my-dvm is not a template for DispVMs"}},
        host=(template("my-dvm", saved=False, template_for_dispvms="True"),),
        defaults=Defaults(),
    ),
    Case(
        "restored here, without template_for_dispvms",
        (DISP, vm("my-dvm", template="fedora-42")),
        {"disp": {"template": "default-dvm", "notes": ["template: my-dvm → default-dvm"]}},
    ),
    Case(
        "restored here",
        (DISP, disposable("my-dvm", template="fedora-42")),
        {"disp": {"template": "my-dvm", "notes": []}},
    ),
    Case(
        "restored here, with the name that the property had first",
        (DISP, vm("my-dvm", template="fedora-42", dispvm_allowed="True")),
        {"disp": {"template": "my-dvm", "notes": []}},
    ),
    Case(
        "its template's template is missing: all of them go",
        (DISP, disposable("my-dvm", template="t"), template("t")),
        {
            "my-dvm": {"problem": "template: t is not restored"},
            "disp": {"problem": "template: my-dvm cannot be restored"},
        },
        options=Options(exclude=["t"], default_template="none"),
    ),
    Case(
        "an AppVM whose template is one for DispVMs only",
        (vm("work", template="my-dvm"), disposable("my-dvm", template="fedora-42")),
        {"work": {"problem": "template: my-dvm is not a template"}},
        defaults=Defaults(),
    ),
    Case(
        "default_dispvm: absent, none, on the host, restored",
        (
            vm("a", template="fedora-42"),
            vm("b", template="fedora-42", default_dispvm=""),
            vm("c", template="fedora-42", default_dispvm="default-dvm"),
            vm("d", template="fedora-42", default_dispvm="my-dvm"),
            disposable("my-dvm", template="fedora-42", default_dispvm="my-dvm"),
        ),
        {
            "a": {"default_dispvm": "default", "notes": []},
            "b": {"default_dispvm": None, "notes": []},
            "c": {"default_dispvm": "default-dvm", "notes": []},
            "d": {"default_dispvm": "my-dvm", "notes": []},
            "my-dvm": {"default_dispvm": "my-dvm", "notes": [], "problem": None},
        },
    ),
    Case(
        "default_dispvm: the host's default in place of one that is missing",
        (vm("a", template="fedora-42", default_dispvm="gone"),),
        {"a": {"default_dispvm": "default", "notes": ["default_dispvm: gone → default (default-dvm)"]}},
    ),
    Case(
        "default_dispvm: missing, and there is no default",
        (vm("a", template="fedora-42", default_dispvm="gone"),),
        {"a": {"default_dispvm": "gone", "problem": "default_dispvm: gone does not exist"}},
        defaults=Defaults("fedora-42"),
    ),
    Case(
        "default_dispvm: no template for DispVMs",
        (vm("a", template="fedora-42", default_dispvm="sys-firewall"),),
        {"a": {"problem": "default_dispvm: sys-firewall is not a template for DispVMs"}},
        defaults=Defaults("fedora-42"),
    ),
    Case(
        "default_dispvm: itself, and it has another problem",
        (disposable("my-dvm", template="gone", default_dispvm="my-dvm"),),
        {"my-dvm": {"default_dispvm": "my-dvm", "problem": "template: gone does not exist"}},
        options=Options(default_template="none"),
    ),
    Case(
        "default_dispvm: ignored when it is missing",
        (vm("a", template="fedora-42", default_dispvm="gone"),),
        {"a": {"default_dispvm": None, "problem": None, "notes": ["default_dispvm: gone → none"]}},
        defaults=Defaults("fedora-42"),
        options=Options(ignore_missing=True),
    ),
]


@pytest.mark.parametrize("case", DISPOSABLES, ids=ids(DISPOSABLES))
def test_disposables(case: Case) -> None:
    hold(case)


def on(name: str, netvm: str, net: bool = False) -> str:
    return vm(name, template="fedora-42", netvm=netvm, **({"provides_network": "True"} if net else {}))


MOVED = "netvm: vpn → default (sys-firewall)"
NETWORKS = [
    Case(
        "absent, none, on the host, restored",
        (vm("a", template="fedora-42"), on("b", ""), on("c", "sys-firewall"), on("d", "vpn"), on("vpn", "c2", True))
        + (on("c2", "", True),),
        {
            "a": {"netvm": "default", "notes": []},
            "b": {"netvm": None, "notes": []},
            "c": {"netvm": "sys-firewall", "notes": []},
            "d": {"netvm": "vpn", "notes": []},
            "vpn": {"netvm": "c2", "notes": [], "problem": None},
        },
    ),
    Case(
        "absent, and the host has none",
        (vm("a", template="fedora-42"),),
        {"a": {"netvm": "default", "problem": None}},
        defaults=Defaults(),
    ),
    Case(
        "missing: the host's default",
        (on("a", "vpn"),),
        {"a": {"netvm": "default", "problem": None, "notes": [MOVED]}},
    ),
    Case(
        "missing: none",
        (on("a", "vpn"),),
        {"a": {"netvm": None, "problem": None, "notes": ["netvm: vpn → none"]}},
        options=Options(netvm="none"),
    ),
    Case(
        "missing: kept",
        (on("a", "vpn"),),
        {"a": {"netvm": "vpn", "problem": "netvm: vpn does not exist", "notes": []}},
        options=Options(netvm="keep"),
    ),
    Case(
        "missing: kept, ignored",
        (on("a", "vpn"),),
        {"a": {"netvm": None, "problem": None, "notes": ["netvm: vpn → none"]}},
        options=Options(netvm="keep", ignore_missing=True),
    ),
    Case(
        "there: whatever is said of missing ones",
        (on("a", "sys-firewall"),),
        {"a": {"netvm": "sys-firewall", "problem": None}},
        options=Options(netvm="none"),
    ),
    Case(
        "missing, and the host has no default",
        (on("a", "vpn"),),
        {"a": {"problem": "netvm: vpn does not exist"}},
        defaults=Defaults("fedora-42"),
    ),
    Case(
        "missing, and the host's default provides none",
        (on("a", "vpn"),),
        {"a": {"problem": "netvm: vpn does not exist"}},
        defaults=Defaults("fedora-42", netvm="default-dvm"),
    ),
    Case(
        "on the host, provides none",
        (on("a", "vpn"),),
        {"a": {"problem": "netvm: vpn does not provide network"}},
        host=(*HOST, vm("vpn", saved=False)),
        options=Options(netvm="keep"),
    ),
    Case(
        "restored, provides none",
        (on("a", "vpn"), on("vpn", "")),
        {"a": {"netvm": "default", "notes": [MOVED]}},
    ),
    Case(
        "restored provides none, that on the host does",
        (on("a", "vpn"), on("vpn", "")),
        {"a": {"netvm": "vpn", "notes": []}, "vpn": {"name": "vpn-1"}},
        host=(*HOST, network("vpn", saved=False)),
    ),
    Case(
        "excluded",
        (on("a", "vpn"), on("vpn", "", True)),
        {"a": {"problem": "netvm: vpn is not restored"}},
        options=Options(exclude=["vpn"], netvm="keep"),
    ),
    Case(
        "a chain: the last is missing, all behind it go",
        (on("a", "n1"), on("n1", "n2", True), on("n2", "n3", True), on("n3", "gone", True)),
        {
            "n3": {"problem": "netvm: gone does not exist"},
            "n2": {"problem": "netvm: n3 cannot be restored"},
            "n1": {"problem": "netvm: n2 cannot be restored"},
            "a": {"problem": "netvm: n1 cannot be restored"},
        },
        options=Options(netvm="keep"),
    ),
    Case(
        "a chain: the last is missing and replaced, all behind it stay",
        (on("a", "n1"), on("n1", "n2", True), on("n2", "gone", True)),
        {"n2": {"netvm": "default"}, "n1": {"netvm": "n2", "notes": []}, "a": {"netvm": "n1", "notes": []}},
    ),
    Case(
        "a loop of one",
        (on("a", "a", True),),
        {"a": {"netvm": "a", "problem": "netvm: a loop of 1: a"}},
    ),
    Case(
        "a loop, and who hangs on it is moved",
        (on("x", "a"), on("a", "b", True), on("b", "c", True), on("c", "a", True), on("y", "x")),
        {
            "a": {"problem": "netvm: a loop of 3: a, b, c", "netvm": "b"},
            "b": {"problem": "netvm: a loop of 3: a, b, c", "netvm": "c"},
            "c": {"problem": "netvm: a loop of 3: a, b, c", "netvm": "a"},
            "x": {"problem": None, "netvm": "default", "notes": ["netvm: a → default (sys-firewall)"]},
            "y": {"problem": None, "netvm": "default"},
        },
    ),
    Case(
        "a loop, and who hangs on it cannot be made",
        (on("y", "x"), on("x", "a", True), on("a", "b", True), on("b", "a", True)),
        {
            "a": {"problem": "netvm: a loop of 2: a, b"},
            "x": {"problem": "netvm: a cannot be restored"},
            "y": {"problem": "netvm: x cannot be restored"},
        },
        options=Options(netvm="keep", ignore_missing=False),
    ),
    Case(
        "a loop, and one in it wants another that hangs on it",
        (
            vm("a", template="fedora-42", netvm="b", provides_network="True", default_dispvm="d"),
            on("b", "a", True),
            disposable("d", template="fedora-42", netvm="a"),
        ),
        {
            "a": {"netvm": "b", "problem": "netvm: a loop of 2: a, b", "notes": []},
            "d": {"problem": "netvm: a cannot be restored"},
        },
        options=Options(netvm="keep"),
    ),
    Case(
        "a loop is not something that is missing",
        (on("a", "b", True), on("b", "a", True)),
        {"a": {"problem": "netvm: a loop of 2: a, b"}},
        options=Options(ignore_missing=True),
    ),
    Case(
        "what would be a loop, had one of them not been moved",
        (on("a", "b", True), vm("b", template="gone", netvm="a", provides_network="True")),
        {"a": {"netvm": "default", "problem": None}, "b": {"problem": "template: gone does not exist"}},
        options=Options(default_template="none"),
    ),
    Case(
        "two loops",
        (on("a", "b", True), on("b", "a", True), on("c", "d", True), on("d", "c", True)),
        {"b": {"problem": "netvm: a loop of 2: a, b"}, "d": {"problem": "netvm: a loop of 2: c, d"}},
    ),
]


@pytest.mark.parametrize("case", NETWORKS, ids=ids(NETWORKS))
def test_networks(case: Case) -> None:
    hold(case)


LONG = "a" * 31
NAMES = [
    Case("free", (WORK,), {"work": {"name": "work"}}),
    Case(
        "taken on the host",
        (WORK,),
        {"work": {"name": "work-1", "notes": ["name: work → work-1", GONE]}},
        host=(*HOST, vm("work", saved=False)),
    ),
    Case(
        "taken, and so are the first numbers",
        (WORK,),
        {"work": {"name": "work-4"}},
        host=(*HOST, *(vm(name, saved=False) for name in ("work", "work-1", "work-2", "work-3"))),
    ),
    Case(
        "the number is another's name in the archive",
        (WORK, vm("work-1", template="fedora-42")),
        {"work": {"name": "work-2"}, "work-1": {"name": "work-1", "notes": []}},
        host=(*HOST, vm("work", saved=False)),
    ),
    Case(
        "the stem is cut",
        (vm(LONG, template="fedora-42"),),
        {LONG: {"name": "a" * 28 + "-1"}},
        host=(*HOST, vm(LONG, saved=False)),
    ),
    Case(
        "two whose stems become the same",
        (vm("a" * 29, template="fedora-42"), vm("a" * 30, template="fedora-42")),
        {"a" * 29: {"name": "a" * 28 + "-1"}, "a" * 30: {"name": "a" * 28 + "-2"}},
        host=(*HOST, vm("a" * 29, saved=False), vm("a" * 30, saved=False)),
    ),
    Case(
        "all numbers are taken",
        (WORK,),
        {"work": {"name": "work", "problem": "name: work is taken"}},
        host=(*HOST, vm("work", saved=False), *(vm(f"work-{n}", saved=False) for n in range(1, 100))),
    ),
    Case(
        "the last number",
        (WORK,),
        {"work": {"name": "work-99"}},
        host=(*HOST, vm("work", saved=False), *(vm(f"work-{n}", saved=False) for n in range(1, 99))),
    ),
    Case(
        "no name is made up",
        (WORK,),
        {"work": {"name": "work", "problem": "name: work is taken"}},
        host=(*HOST, vm("work", saved=False)),
        options=Options(no_rename=True),
    ),
    Case(
        "renamed by the user",
        (WORK, vm("other", template="fedora-42")),
        {"work": {"name": "mail", "notes": ["name: work → mail", GONE]}, "other": {"name": "other"}},
        options=Options(rename={"work": "mail"}),
    ),
    Case(
        "renamed to the name of another, who gives way",
        (vm("mail", template="fedora-42"), WORK),
        {"work": {"name": "mail"}, "mail": {"name": "mail-1"}},
        options=Options(rename={"work": "mail"}),
    ),
    Case(
        "two change their names",
        (vm("a", template="fedora-42"), vm("b", template="fedora-42")),
        {"a": {"name": "b"}, "b": {"name": "a"}},
        options=Options(rename={"a": "b", "b": "a"}),
    ),
    Case(
        "renamed to a name that is taken on the host",
        (WORK,),
        {"work": {"name": "sys-firewall", "problem": "name: sys-firewall is taken"}},
        options=Options(rename={"work": "sys-firewall"}),
    ),
    Case(
        "two are renamed to one name",
        (vm("a", template="fedora-42"), vm("b", template="fedora-42")),
        {"a": {"name": "c", "problem": None}, "b": {"name": "c", "problem": "name: c is taken"}},
        options=Options(rename={"a": "c", "b": "c"}),
    ),
    Case(
        "twice in the plan, and none may be made up",
        (vm("mail", template="fedora-42"), WORK),
        {"work": {"name": "mail", "problem": None}, "mail": {"problem": "name: mail is taken"}},
        options=Options(rename={"work": "mail"}, no_rename=True),
    ),
    Case(
        "reserved",
        tuple(vm(name, template="fedora-42") for name in RESERVED),
        {name: {"name": f"{name}-1", "problem": None} for name in RESERVED},
    ),
    Case(
        "reserved, and no name is made up",
        tuple(vm(name, template="fedora-42") for name in RESERVED),
        {name: {"problem": f"name: {name}: this name is reserved"} for name in RESERVED},
        options=Options(no_rename=True),
    ),
    Case(
        "a host that takes all that Qubes OS takes",
        tuple(vm(name, template="fedora-42") for name in DOTS),
        {name: {"name": name, "problem": None, "notes": []} for name in DOTS},
    ),
    Case(
        "a host that takes no dots",
        (*(vm(name, template="fedora-42") for name in DOTS), vm("plain", template="fedora-42", netvm="sys.net")),
        {
            "work.mail": {"name": "work-mail", "problem": None, "notes": ["name: work.mail → work-mail"]},
            "a..": {"name": "a--"},
            "vm.1": {"name": "vm-1-1"},
            "x.img": {"name": "x-img"},
            "vm-1": {"name": "vm-1", "notes": []},
            "plain": {"name": "plain"},
        },
        defaults=DEFAULTS._replace(without=(".",)),
    ),
    Case(
        "a host that takes no dots, and no name is made up",
        (vm("work.mail", template="fedora-42"), WORK),
        {
            "work.mail": {"problem": "name: work.mail: the host accepts no name that contains ."},
            "work": {"problem": None},
        },
        defaults=DEFAULTS._replace(without=(".",)),
        options=Options(no_rename=True),
    ),
    Case(
        "what logical volumes cannot be called",
        (vm("my_tdata", template="fedora-42"),),
        {"my_tdata": {"name": "my-tdata"}},
        defaults=DEFAULTS._replace(without=("_tdata",)),
    ),
    Case(
        "reserved, but renamed",
        (vm("none", template="fedora-42"),),
        {"none": {"name": "some", "problem": None}},
        options=Options(rename={"none": "some"}),
    ),
    Case(
        "all references follow",
        (
            vm("work", template="t", netvm="n", default_dispvm="d", audiovm="n", backends=("n",)),
            vm("disp", "DispVM", template="d"),
            template("t"),
            network("n", template="t"),
            disposable("d", template="t"),
        ),
        {
            "work": {"template": "t-1", "netvm": "n-1", "default_dispvm": "d-1"},
            "disp": {"template": "d-1"},
            "n": {"template": "t-1"},
            "d": {"template": "t-1", "notes": ["name: d → d-1", "template: t → t-1"]},
        },
        host=(template("t", saved=False), vm("n", saved=False), vm("d", saved=False)),
    ),
    Case(
        "one that a run has left counts as not there",
        (WORK,),
        {"work": {"name": "work", "notes": [GONE, "left by an interrupted run: created again"]}},
        host=(*HOST, vm("work", saved=False, features={"qbtools-unfinished": "x"})),
        leftovers=("work",),
    ),
    Case(
        "a number that a run has left is given again",
        (WORK,),
        {"work": {"name": "work-1"}},
        host=(*HOST, vm("work", saved=False), vm("work-1", saved=False, features={"qbtools-unfinished": "x"})),
        leftovers=("work-1",),
    ),
    Case(
        "one that is still being made is simply taken",
        (WORK,),
        {"work": {"name": "work-1"}},
        host=(*HOST, vm("work", saved=False, features={"qbtools-unfinished": "x"})),
    ),
]


@pytest.mark.parametrize("case", NAMES, ids=ids(NAMES))
def test_names(case: Case) -> None:
    hold(case)


def test_a_domain_that_is_left_out_takes_no_name() -> None:
    """A domain that is not selected is in the plan with a name that would be free for it."""
    case = Case(
        "",
        (vm("mail", template="fedora-42"), WORK),
        {"work": {"name": "mail", "action": "create"}, "mail": {"name": "mail-1", "action": "skip", "problem": None}},
        options=Options(rename={"work": "mail"}, exclude=["mail"]),
    )
    hold(case)


KERNELS = [
    (Defaults(kernels=("6.6", "6.1")), "6.1", "6.1", []),
    (Defaults(kernels=("6.6", "6.1")), "4.4", "default", ["kernel: 4.4 → default (6.6)"]),
    (Defaults(kernels=("6.6",)), "", None, []),
    (Defaults(kernels=("6.6",)), None, "default", []),
    (Defaults(), "4.4", "4.4", []),
    (Defaults(), "a b\nend", "default", ["kernel: (a malformed name) → default"]),
    (Defaults(), "none", "default", ["kernel: (a malformed name) → default"]),
]


@pytest.mark.parametrize(("defaults", "kernel", "expected", "notes"), KERNELS)
def test_kernels(defaults: Defaults, kernel: str | None, expected: str | None, notes: list[str]) -> None:
    machine = vm("a", "StandaloneVM", **({} if kernel is None else {"kernel": kernel}))
    hold(Case("", (machine,), {"a": {"kernel": expected, "notes": notes, "problem": None}}, defaults=defaults))


def test_a_label_that_the_host_lacks() -> None:
    case = Case("", (vm("a", "StandaloneVM", label="orange"), vm("b", "StandaloneVM")), {})
    for labels, expected, notes in (
        (("orange", "red"), "orange", ()),
        (("blue", "red"), "red", ("label: orange → red",)),
        (("blue", "gray"), "blue", ("label: orange → blue",)),
    ):
        case = case._replace(host=())
        line = lines(made(case, labels=labels))["a"]
        assert (line.label, line.notes) == (expected, notes)


POOLS = [
    ((), Defaults(), {}, []),
    (("lvm", "other"), Defaults(), {}, []),
    (("other",), Defaults(), {"lvm": None}, ["pool: lvm → default"]),
    (("other",), Defaults(pools=("fast",)), {"lvm": "fast"}, ["pool: lvm → fast"]),
    ((), Defaults(pools=("fast", "lvm")), {}, []),
]


@pytest.mark.parametrize(("pools", "defaults", "expected", "notes"), POOLS)
def test_pools(pools: tuple[str, ...], defaults: Defaults, expected: object, notes: list[str]) -> None:
    kernel = {"name": "kernel", "pool": "linux-kernel", "vid": "6.6", "size": "5"}
    case = Case("", (vm("a", "StandaloneVM", volumes=(PRIVATE, kernel)),), {}, host=(), defaults=defaults)
    line = lines(made(case, pools=pools))["a"]
    assert (line.pools, list(line.notes)) == (expected, notes)


def test_further_references() -> None:
    case = Case(
        "",
        (
            vm(
                "a",
                "StandaloneVM",
                audiovm="sound",
                guivm="dom0",
                management_dispvm="gone",
                backends=("dom0", "b", "usb"),
            ),
            vm("b", "StandaloneVM"),
        ),
        {},
        host=(vm("sound", saved=False), vm("b", saved=False)),
    )
    line = lines(made(case))["a"]
    assert line.further == {"sound": "sound", "dom0": "dom0", "b": "b-1"}
    assert line.notes == (
        "management_dispvm: gone, which does not exist, is left out",
        "a device of usb, which does not exist, is left out",
    )


def test_the_order() -> None:
    case = Case(
        "",
        (vm("z", template="t"), disposable("d", template="t"), vm("disp", "DispVM", template="d"), template("t"))
        + (network("n", template="t"), template("s"), vm("alone", "StandaloneVM", template_for_dispvms="True")),
        {},
    )
    assert [line.domain for line in made(case).lines] == ["t", "s", "d", "alone", "z", "disp", "n"]


BROKEN = Case(
    "",
    (on("a", "vpn"), on("b", "a"), on("c", "sys-firewall"), on("a2", "a")),
    {},
    options=Options(netvm="keep"),
)


def test_a_problem_stays_in_the_plan() -> None:
    found = made(BROKEN)
    assert [line.domain for line in found.problems] == ["a", "b", "a2"]
    assert len(found.creates) == 4


def test_what_is_broken_is_skipped() -> None:
    found = made(BROKEN._replace(options=Options(netvm="keep", skip_broken=True)))
    assert (found.problems, [line.domain for line in found.creates]) == ([], ["c"])
    skipped = lines(found)["a"]
    assert (skipped.written.action, skipped.problem, skipped.notes) == ("skip", "netvm: vpn does not exist", ())


def test_what_is_missing_is_ignored() -> None:
    found = made(BROKEN._replace(options=Options(netvm="keep", ignore_missing=True)))
    by_name = lines(found)
    assert found.problems == [] and len(found.creates) == 4
    # a is there now, but it provides no network.
    assert [by_name[name].written.netvm for name in ("a", "b", "c")] == [None, None, "sys-firewall"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(include=["nothing*"]), "no domain matches nothing*"),
        (Options(exclude=["*"]), "no saved domain is selected"),
        (Options(rename={"gone": "x"}), "cannot rename gone: it is not among the domains to be restored"),
        (Options(rename={"work": "x"}, exclude=["work"]), "cannot rename work: it is not among"),
        (Options(rename={"work": "../x"}), "work cannot be renamed to ../x: a domain's name has"),
        (Options(rename={"work": "dom0"}), "work cannot be renamed to dom0: this name is reserved"),
        (Options(default_template="gone"), "the host has no template gone"),
        (Options(default_template="sys-firewall"), "the host has no template sys-firewall"),
    ],
)
def test_options_that_make_no_sense(options: Options, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(Case("", (WORK, vm("other", template="fedora-42")), {}, options=options))
    assert caught.value.message.startswith(message)


def test_an_archive_with_nothing_to_restore() -> None:
    """The options are not the problem."""
    with pytest.raises(Refused, match="^the archive has no domain that can be restored$"):
        made(Case("", (), {}))


def test_dom0_is_not_in_a_plan() -> None:
    home = {"backup-content": "1", "backup-path": "dom0-home/user"}
    features = "".join(f"<feature name='{name}'>{text}</feature>" for name, text in home.items())
    text = document(WORK).replace(b"class='AdminVM'>", f"class='AdminVM'><features>{features}</features>".encode())
    archive = Metadata(safexml.parse(text))
    assert [domain.name for domain in archive.saved()] == ["dom0", "work"]
    assert [line.domain for line in plan.make(archive, metadata(*HOST), DEFAULTS, Options()).lines] == ["work"]


def test_sizes() -> None:
    none = {"name": "root", "save_on_stop": "True"}
    small = {"name": "root", "save_on_stop": "True", "size": "5"}
    volatile = {"name": "volatile", "size": "7"}
    case = Case(
        "",
        (
            vm("a", "StandaloneVM", volumes=(PRIVATE, small, volatile)),
            vm("b", "StandaloneVM", volumes=(PRIVATE, none)),
            vm("c", "StandaloneVM", volumes=()),
        ),
        {},
    )
    assert {name: line.size for name, line in lines(made(case)).items()} == {"a": 2147483653, "b": None, "c": 0}
