"""qb-plan as a program: what it asks a host, what it prints, and its status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machines import document, network, template, vm
from support import bash, run

from qbtools.volumes.marks import Mark

HOST_PROGRAM = """\
#!/bin/sh
# A host that is a directory with its answers.
case $2 in
    inventory) exec cat "$1/qubes.xml" ;;
    defaults) exec cat "$1/defaults" ;;
    verbs) printf '%s\\n' inventory volumes files create set remove defaults verbs check ;;
    check) [ ! -e "$1/full" ] || { echo "the disk is full" >&2; exit 1; } ;;
    *) echo "qb-host-files: error: no verb $2" >&2; exit 2 ;;
esac
"""
ARCHIVE = document(
    vm("work", template="debian-8", netvm="sys-vpn"),
    vm("mail", template="debian-8", netvm="sys-firewall"),
    network("sys-vpn", template="debian-8", netvm="sys-firewall"),
    template("debian-8", saved=False),
)
ELSEWHERE = str(Mark("00000000", "0" * 32, 1, 1, 1))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    program = tmp_path / "qb-host-files"
    program.write_text(HOST_PROGRAM)
    program.chmod(0o755)
    (tmp_path / "archive.xml").write_bytes(ARCHIVE)
    (tmp_path / "qubes.xml").write_bytes(host())
    (tmp_path / "defaults").write_text("template\tfedora-42\nnetvm\tsys-firewall\n")
    return tmp_path


def host(*more: str) -> bytes:
    return document(template("fedora-42", saved=False), network("sys-firewall", saved=False), *more)


def plan(place: Path, words: str = "", data: bytes = b"") -> tuple[int, str, str]:
    text = f"PATH=$PATH:{place}; cd {place} && qb-plan --metadata archive.xml --host files:{place} {words}"
    done = bash(text, data)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def table(text: str) -> dict[str, list[str]]:
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    assert rows[0][0] == "action" and rows[-1] == ["end"]
    return {row[1]: row for row in rows[1:-1]}


def test_a_plan(place: Path) -> None:
    status, out, err = plan(place)
    assert (status, err) == (0, "")
    size = "2147483648"
    assert table(out) == {
        "work": ["create", "work", "work", "AppVM", "fedora-42", "sys-vpn", "default", "default", size, "-"],
        "mail": ["create", "mail", "mail", "AppVM", "fedora-42", "sys-firewall", "default", "default", size, "-"],
        "sys-vpn": [
            "create",
            "sys-vpn",
            "sys-vpn",
            "AppVM",
            "fedora-42",
            "sys-firewall",
            "default",
            "default",
            size,
            "-",
        ],
    }
    assert "#   work: template: debian-8 → fedora-42\n" in out


def test_from_standard_input(place: Path) -> None:
    done = bash(f"PATH=$PATH:{place}; qb-plan --metadata - --host files:{place} <{place}/archive.xml")
    assert done.stdout.decode() == plan(place)[1]


def test_all_options(place: Path) -> None:
    (place / "qubes.xml").write_bytes(host(vm("x", saved=False), template("other", saved=False)))
    words = "--include 'w*' --include=sys-* --exclude 'sys-*' --rename work=y --netvm=none --default-template other -v"
    status, out, err = plan(place, words)
    assert (status, err) == (0, "qb-plan: 1 of 3 saved domains will be restored\n")
    rows = table(out)
    assert rows["work"][:6] == ["create", "work", "y", "AppVM", "other", "-"]
    assert (rows["mail"][0], rows["sys-vpn"][0]) == ("skip", "skip")


def test_a_problem_is_status_5_and_the_plan_is_complete(place: Path) -> None:
    (place / "qubes.xml").write_bytes(host(vm("work", saved=False)))
    status, out, err = plan(place, "--no-rename")
    assert status == 5
    assert err == (
        "qb-plan: error: 1 of the domains cannot be restored: work (name: work is taken)\n"
        "hint: change the plan, or make it with --skip-broken or --ignore-missing\n"
    )
    assert table(out)["work"][-1] == "name: work is taken"
    status, out, err = plan(place, "--no-rename --skip-broken")
    assert (status, err, table(out)["work"][0]) == (0, "", "skip")


def test_a_host_that_could_not_create_a_domain(place: Path) -> None:
    """It is asked once; the restore says the same. The plan is complete."""
    (place / "full").touch()
    words = f"qb-host-files {place} check: the disk is full"
    status, out, err = plan(place)
    assert (status, err, table(out)["work"][-1]) == (1, f"qb-plan: error: {words}\n", "-")
    status, out, err = plan(place, "--json")
    assert (status, err, json.loads(out)["failure"]) == (1, f"qb-plan: error: {words}\n", words)


def test_ignore_missing(place: Path) -> None:
    (place / "defaults").write_text("")
    assert plan(place)[0] == 5
    status, out, _ = plan(place, "--ignore-missing")
    assert (status, table(out)["work"][4:6]) == (0, ["-", "sys-vpn"])


def test_check(place: Path) -> None:
    text = plan(place)[1]
    (place / "plan").write_text(text)
    assert plan(place, "--check plan") == (0, text, "")
    (place / "plan").write_text(text.replace("create\tsys-vpn", "skip\tsys-vpn"))
    status, out, _ = plan(place, "--check plan")
    assert (status, table(out)["work"][5]) == (0, "default")
    assert "# changed: work: netvm sys-vpn → default\n" in out
    status, out, _ = plan(place, "--check plan --netvm=keep")
    assert (status, table(out)["work"][-1]) == (5, "netvm: sys-vpn is not restored")


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_a_plan_that_was_cut_is_refused(place: Path, cut: int) -> None:
    (place / "plan").write_text(plan(place)[1][:cut])
    status, out, err = plan(place, "--check plan")
    assert (status, out) == (4, "") and err.startswith("qb-plan: error: plan ends")


def test_json(place: Path) -> None:
    status, out, _ = plan(place, "--json")
    found = json.loads(out)
    assert (status, found["problems"], [one["domain"] for one in found["domains"]]) == (
        0,
        0,
        ["work", "mail", "sys-vpn"],
    )
    assert found["domains"][0]["notes"] == ["template: debian-8 → fedora-42"]


def test_what_a_dead_run_has_left(place: Path) -> None:
    # The mark of another host tells nothing: its domain is taken.
    (place / "qubes.xml").write_bytes(host(vm("work", saved=False, features={"qbtools-unfinished": ELSEWHERE})))
    assert table(plan(place)[1])["work"][2] == "work-1"
    own = Mark.own()
    gone = Mark(own.host, "0" * 32, own.pidns, own.pid, own.start)  # before the last boot
    (place / "qubes.xml").write_bytes(host(vm("work", saved=False, features={"qbtools-unfinished": str(gone)})))
    _, out, _ = plan(place)
    assert table(out)["work"][2] == "work"
    assert "#   work: left by an interrupted run: created again\n" in out
    (place / "qubes.xml").write_bytes(host(vm("work", saved=False, features={"qbtools-unfinished": str(own)})))
    assert table(plan(place)[1])["work"][2] == "work-1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--netvm=vpn", "--netvm: must be one of default, none, keep"),
        ("--rename work", "--rename: work is not OLD=NEW"),
        ("--rename work=a --rename work=b", "--rename: work=b is given twice"),
        ("--rename work=../x", "work cannot be renamed to ../x: a domain's name has 1 to 31 letters"),
        ("--rename =x", "cannot rename : it is not among the domains to be restored"),
        ("--include gone", "no domain matches gone"),
        ("--default-template gone", "the host has no template gone"),
        ("--check plan --include work", "--check does not go with the other arguments"),
    ],
)
def test_usage(place: Path, words: str, message: str) -> None:
    status, out, err = plan(place, words)
    assert (status, out) == (2, "") and err.startswith(f"qb-plan: error: {message}")


@pytest.mark.parametrize(
    ("file", "content", "status"),
    [
        ("archive.xml", b'<!DOCTYPE q [<!ENTITY a "b">]><qubes>&a;</qubes>', 4),
        ("archive.xml", ARCHIVE.replace(b"work", b""), 4),
        ("archive.xml", b'<qubes a="' + b"x" * (10 << 20) + b'"/>', 4),
        ("archive.xml", b"", 4),
        ("qubes.xml", b"<qubes>", 1),
        ("qubes.xml", host().replace(b"fedora-42", b"../x"), 1),
        ("defaults", b"template\t../x\n", 1),
        ("defaults", b"template\tx", 1),
    ],
)
def test_hostile_input(place: Path, file: str, content: bytes, status: int) -> None:
    (place / file).write_bytes(content)
    found, out, err = plan(place)
    assert (found, out) == (status, "") and err.count("\n") == 1 and len(err) < 500


def test_a_hostile_name_becomes_a_harmless_one(place: Path) -> None:
    (place / "archive.xml").write_bytes(ARCHIVE.replace(b"work", b"../x"))
    status, out, err = plan(place)
    assert status == 0 and "../x" not in out and "\tvm.._x\t" in out
    assert err.startswith('qb-plan: warning: the domain name "../x" cannot be used')


def test_a_host_that_fails(place: Path) -> None:
    (place / "defaults").unlink()
    status, out, err = plan(place)
    assert (status, out) == (1, "") and "defaults" in err
    assert run("qb-plan", "--metadata", place / "archive.xml", "--host", "nothing-such:x").returncode == 2
    assert run("qb-plan", "--metadata", place / "none", "--host", place).returncode in (1, 2)
