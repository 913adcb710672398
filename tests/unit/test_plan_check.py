"""Plans as text: they can be read again, changes of the user are followed or refused, hostile text is refused."""

from __future__ import annotations

import io
import json

import pytest
from machines import disposable, metadata, network, template, vm

from qbtools.domains import plan, plantext
from qbtools.domains.defaults import Defaults
from qbtools.domains.plan import Options
from qbtools.domains.planlines import Plan, Written
from qbtools.errors import Damaged, Truncated, UsageError
from qbtools.streams import Reader

ARCHIVE = metadata(
    vm("work", template="debian-8", netvm="vpn", kernel="4.4"),
    template("debian-8"),
    network("vpn", template="debian-8", netvm="sys-firewall"),
    disposable("dvm", template="debian-8"),
    vm("alone", "StandaloneVM"),
    template("gone", saved=False),
)
HOST = metadata(
    template("fedora-42", saved=False),
    network("sys-firewall", saved=False),
    vm("alone", "StandaloneVM", saved=False),
    disposable("default-dvm", saved=False),
)
DEFAULTS = Defaults("fedora-42", "sys-firewall", "default-dvm", ("6.6", "6.1"))
HEADER = "\t".join(plantext.COLUMNS) + "\n"
SIZE = "2147483648"


def made(**options: object) -> Plan:
    return plan.make(ARCHIVE, HOST, DEFAULTS, Options(**options))  # type: ignore[arg-type]


def read(text: str | bytes) -> list[Written]:
    data = text if isinstance(text, bytes) else text.encode()
    return plantext.read(Reader(io.BytesIO(data), "plan"), ARCHIVE)


def checked(text: str, **options: object) -> Plan:
    return plan.check(ARCHIVE, HOST, DEFAULTS, Options(**options), read(text))  # type: ignore[arg-type]


def row(domain: str, name: str | None = None, *, action: str = "create", kind: str = "AppVM", **cells: str) -> str:
    columns = {
        **{"action": action, "domain": domain, "name": name or domain, "class": kind, "template": "-"},
        **{"netvm": "default", "default_dispvm": "default", "kernel": "default", "size": SIZE, "problem": "-"},
        **cells,
    }
    return "\t".join(columns.values()) + "\n"


def text_of(*rows: str) -> str:
    return HEADER + "".join(rows) + "end\n"


def columns(found: Plan, domain: str) -> tuple[object, ...]:
    return next(line.written for line in found.lines if line.domain == domain)[2:]


def problem(found: Plan, domain: str) -> str | None:
    return next(line.problem for line in found.lines if line.domain == domain)


def test_what_is_written_is_read_again() -> None:
    for options in ({}, {"exclude": ["vpn", "debian-8"]}, {"no_rename": True, "skip_broken": True}):
        first = made(**options)
        text = plantext.to_text(first)
        assert read(text) == [line.written for line in first.lines]
        second = checked(text, skip_broken=bool(options.get("skip_broken")))
        # What was left out for a problem is not looked at again.
        assert plantext.to_text(second) == text.replace("name: alone is taken", "-")
        assert second.changed == []


def test_the_text() -> None:
    text = plantext.to_text(made(exclude=["dvm"]))
    body = text[text.index("action\t") :]
    assert body == (
        f"action\tdomain\tname\tclass\ttemplate\tnetvm\tdefault_dispvm\tkernel\tsize\tproblem\n"
        f"create\tdebian-8\tdebian-8\tTemplateVM\t-\tdefault\tdefault\tdefault\t{SIZE}\t-\n"
        f"skip\tdvm\tdvm\tAppVM\tdebian-8\tdefault\tdefault\tdefault\t{SIZE}\t-\n"
        f"create\twork\twork\tAppVM\tdebian-8\tvpn\tdefault\tdefault\t{SIZE}\t-\n"
        f"#   work: kernel: 4.4 → default (6.6)\n"
        f"create\tvpn\tvpn\tAppVM\tdebian-8\tsys-firewall\tdefault\tdefault\t{SIZE}\t-\n"
        f"create\talone\talone-1\tStandaloneVM\t-\tdefault\tdefault\tdefault\t{SIZE}\t-\n"
        f"#   alone-1: name: alone → alone-1\n"
        f"end\n"
    )
    assert all(line.startswith("#") for line in text[: text.index("action\t")].splitlines())


def test_json() -> None:
    found = json.loads(json.dumps(plantext.as_document(made(no_rename=True))))
    assert found["problems"] == 1
    assert found["changed"] == []
    assert found["domains"][2] == {
        **{"action": "create", "domain": "work", "name": "work", "class": "AppVM", "template": "debian-8"},
        **{"netvm": "vpn", "default_dispvm": "default", "kernel": "default", "size": int(SIZE), "problem": None},
        "notes": ["kernel: 4.4 → default (6.6)"],
    }
    assert found["domains"][-1]["problem"] == "name: alone is taken"


def test_a_plan_says_in_comments_what_was_changed() -> None:
    text = plantext.to_text(
        checked(text_of(row("work", template="debian-8"), row("debian-8", action="skip", kind="TemplateVM")))
    )
    assert "# changed: work: template debian-8 → fedora-42\nend\n" in text


KEPT = [
    (
        "as it is",
        row("work", template="fedora-42", netvm="-", kernel="6.1"),
        ("work", "fedora-42", None, "default", "6.1"),
    ),
    ("a new name", row("work", "mail", template="fedora-42"), ("mail", "fedora-42", "default", "default", "default")),
    ("default as a template", row("work", template="default"), ("work", "fedora-42", "default", "default", "default")),
    (
        "none said as a word",
        row("work", template="fedora-42", netvm="none", default_dispvm="none", kernel="none"),
        ("work", "fedora-42", None, None, None),
    ),
    ("no template", row("work", template="-"), ("work", None, "default", "default", "default")),
    (
        "another on the host",
        row("work", template="fedora-42", netvm="sys-firewall", default_dispvm="default-dvm"),
        ("work", "fedora-42", "sys-firewall", "default-dvm", "default"),
    ),
    (
        "a kernel that is not there",
        row("work", template="fedora-42", kernel="5.5"),
        ("work", "fedora-42", "default", "default", "default"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in KEPT], ids=[case[0] for case in KEPT])
def test_the_plan_is_followed_exactly(text: str, expected: tuple[object, ...]) -> None:
    found = checked(text_of(text))
    assert columns(found, "work") == expected
    assert problem(found, "work") is None


def test_a_domain_without_line_is_left_alone() -> None:
    assert [line.domain for line in checked(text_of(row("alone", "b", kind="StandaloneVM"))).lines] == ["alone"]


def test_the_order_of_lines_means_nothing() -> None:
    rows = [row("work", template="debian-8"), row("dvm", template="debian-8"), row("debian-8", kind="TemplateVM")]
    assert [line.domain for line in checked(text_of(*rows)).lines] == ["debian-8", "dvm", "work"]


def test_references_follow_a_name_that_was_changed_by_hand() -> None:
    rows = [row("work", template="debian-8"), row("debian-8", "old", kind="TemplateVM")]
    found = checked(text_of(*rows))
    assert columns(found, "work")[1] == "old"
    assert found.changed == ["work: template debian-8 → old"]
    assert checked(text_of(rows[0].replace("\tdebian-8\t", "\told\t"), rows[1])).changed == []


def test_a_name_on_the_host_has_priority_over_an_old_name() -> None:
    """`vpn` in the plan is that of the host: the one of the archive has got another name."""
    host = metadata(template("fedora-42", saved=False), network("vpn", saved=False))
    rows = [row("work", template="fedora-42", netvm="vpn"), row("vpn", "vpn-1", template="fedora-42")]
    found = plan.check(ARCHIVE, host, Defaults(), Options(), read(text_of(*rows)))
    assert (columns(found, "work")[2], found.changed) == ("vpn", [])


SKIPPED = row("debian-8", action="skip", kind="TemplateVM")
CHANGES = [
    ("moved to the default", {}, "fedora-42", None),
    ("a problem", {"default_template": "none"}, "debian-8", "template: debian-8 is not restored"),
    ("ignored", {"default_template": "none", "ignore_missing": True}, None, None),
]


@pytest.mark.parametrize(
    ("options", "expected", "why"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES]
)
def test_a_template_that_is_skipped_by_hand(options: dict[str, object], expected: str | None, why: str | None) -> None:
    found = checked(text_of(row("work", template="debian-8"), SKIPPED), **options)
    assert (columns(found, "work")[1], problem(found, "work")) == (expected, why)
    assert bool(found.changed) == (why is None)


def test_as_it_is_written_or_not_at_all() -> None:
    """When a plan is carried out, a machine whose network failed does not get another one."""
    rows = [row("work", template="fedora-42", netvm="vpn"), row("vpn", template="fedora-42", action="skip")]
    found = plan.check(ARCHIVE, HOST, DEFAULTS, plan.AS_WRITTEN, read(text_of(*rows)))
    assert problem(found, "work") == "netvm: vpn is not restored"


def test_a_domain_that_was_skipped_finds_its_own_again() -> None:
    text = plantext.to_text(made(include=["alone"]))
    assert [line.written.action for line in made(include=["alone"]).lines].count("skip") == 4
    found = checked(text.replace("skip\t", "create\t"))
    assert [line.written for line in found.lines] == [line.written for line in made().lines]
    assert found.changed == []


PROBLEMS = [
    (row("work", template="fedora-42", netvm="sys-firewal"), "netvm: sys-firewal does not exist"),
    (row("work", template="fedora-24"), "template: fedora-24 does not exist"),
    (row("work", template="fedora-42", default_dispvm="x"), "default_dispvm: x does not exist"),
    (row("work", template="sys-firewall"), "template: sys-firewall is not a template"),
    (row("work", "work-9", template="fedora-42", netvm="work-9"), "netvm: work-9 does not provide network"),
    (row("work", "none", template="fedora-42"), "name: none: this name is reserved"),
    (row("work", "dom0", template="fedora-42"), "name: dom0 is taken, on the host; dom0-1 is free"),
    (row("work", "alone", template="fedora-42"), "name: alone is taken, on the host; alone-1 is free"),
]


@pytest.mark.parametrize(("text", "expected"), PROBLEMS)
def test_impossible_values_are_problems(text: str, expected: str) -> None:
    """A typing error is never replaced by a default: the default might give a machine access to the network."""
    assert problem(checked(text_of(text)), "work") == expected


def test_a_template_for_one_that_has_none() -> None:
    found = checked(text_of(row("alone", "b", kind="StandaloneVM", template="fedora-42")))
    assert problem(found, "alone") == "template: a StandaloneVM cannot have one"


def test_a_name_twice() -> None:
    found = checked(text_of(row("work", "x", template="fedora-42"), row("vpn", "x", template="fedora-42")))
    assert problem(found, "work") is None
    assert problem(found, "vpn") == "name: x is taken, twice in the plan; x-1 is free"


def test_a_free_name_belongs_to_no_domain_in_the_plan() -> None:
    rows = [row("work", "alone", template="fedora-42"), row("vpn", "alone-1", template="fedora-42", action="skip")]
    assert problem(checked(text_of(*rows)), "work") == "name: alone is taken, on the host; alone-2 is free"


def test_a_loop_by_hand() -> None:
    found = checked(text_of(row("vpn", "n", template="fedora-42", netvm="n")))
    assert problem(found, "vpn") == "netvm: a loop of 1: n"


def test_what_a_run_has_left() -> None:
    host = metadata(template("fedora-42", saved=False), vm("work", saved=False, features={"qbtools-unfinished": "x"}))
    written = read(text_of(row("work", template="fedora-42")))
    found = plan.check(ARCHIVE, host, DEFAULTS, Options(), written, {"work"})
    assert (found.lines[0].problem, found.lines[0].leftover) == (None, True)
    assert plan.check(ARCHIVE, host, DEFAULTS, Options(), written).lines[0].problem is not None


def test_the_words_of_a_default_template_are_checked() -> None:
    with pytest.raises(UsageError):
        checked(text_of(row("work")), default_template="gone")


REFUSED = [
    ("", "ends without its line end"),
    (HEADER, "ends without its line end"),
    (HEADER + row("work"), "ends without its line end"),
    (text_of(row("work"))[:-1], "has no newline"),
    ("end\n", "line 1 does not name the columns"),
    (row("work") + "end\n", "line 1 does not name the columns"),
    (text_of().replace("netvm", "vm"), "line 1 does not name the columns"),
    (text_of() + row("work"), "line 3 follows the end"),
    (text_of() + "end\n", "line 3 follows the end"),
    (text_of(row("work"), row("work")), "line 3: the domain work occurs twice"),
    (text_of(row("unknown")), "line 2: the archive has no saved domain unknown"),
    (text_of(row("gone", kind="TemplateVM")), "line 2: the archive has no saved domain gone"),
    (text_of(row("dom0", kind="AdminVM")), "line 2: the archive has no saved domain dom0"),
    (text_of(row("work", action="delete")), "an action is create or skip, not delete"),
    (text_of(row("work", action="CREATE")), "an action is create or skip, not CREATE"),
    (text_of(row("work", kind="TemplateVM")), "work is of class AppVM, which cannot be changed"),
    (text_of(row("work", size="5")), "the size of work cannot be changed"),
    (text_of(row("work", size="-")), "the size of work cannot be changed"),
    (text_of(row("work").replace("\t", "    ")), "line 2 has spaces between its columns"),
    (text_of(row("work").rstrip("\n") + "\tx\n"), "line 2 has 11 columns, not 10"),
    (text_of(row("work") + "\t\n"), "line 3 has 2 columns, not 10"),
    (text_of(row("work").replace("\n", "\r\n")), "characters other than printable ASCII"),
    (text_of(row("work", "wörk")), "characters other than printable ASCII"),
    (text_of(row("work", "a\0b")), "characters other than printable ASCII"),
    (text_of(row("work", "\033[2J")), "characters other than printable ASCII"),
    (text_of(row("work", "x" * 5000)), "line 2 is longer than 4096 bytes"),
    (text_of(row("work", kernel="-rf")), "the kernel -rf"),
    (text_of(row("work", kernel="")), "the kernel : "),
    ("\ufeff" + text_of(row("work")), "characters other than printable ASCII"),
    *(
        (text_of(row("work", name)), f"line 2: {name}: a domain's name has")
        for name in ("../x", "-rf", "-", "a b", "a/b", "1", "a" * 32, "$(id)", "a;b")
    ),
    *(
        (text_of(row("work", **{column: "../x"})), "line 2: ../x: a domain's name has")
        for column in ("template", "netvm", "default_dispvm")
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_hostile_or_broken_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(Damaged) as caught:
        read(text)
    assert message in caught.value.message


def test_every_cut_is_refused() -> None:
    whole = plantext.to_text(made()).encode()
    for end in range(len(whole)):
        with pytest.raises(Truncated if end and whole[:end].endswith(b"\n") else Damaged):
            read(whole[:end])


def test_comments_may_hold_anything() -> None:
    text = b"# \xff\xfe\033[2J\n\n#\n" + text_of(row("work", template="fedora-42")).encode() + b"# behind\n\n"
    assert len(read(text)) == 1


def test_texts_of_the_archive_never_add_a_line() -> None:
    """Invalid names in the archive appear in notes, which are lines of the plan."""
    bad = "x\nend\ncreate\tx"
    archive = metadata(
        vm("a", template=bad, netvm=bad, default_dispvm=bad, audiovm=bad, kernel=bad, label=bad, backends=(bad,)),
        labels=("red", bad, "black"),
    )
    found = plan.make(archive, HOST, DEFAULTS, Options(default_template="none", netvm="keep"))
    text = plantext.to_text(found)
    plain = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(plain) == 3 and plain[-1] == "end"
    assert "(a malformed name)" in text
    assert plantext.read(Reader(io.BytesIO(text.encode())), archive) == [found.lines[0].written]
