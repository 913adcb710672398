"""A host that fails, prints nonsense, or never ends: the message names it and what it said; nothing of it is used."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from running import spare_others

from qbtools.domains import names
from qbtools.errors import Failed, UsageError
from qbtools.hosts import client, listing
from qbtools.hosts.client import Host
from qbtools.hosts.listing import Held, HostVolume
from qbtools.hosts.unsaved import Unsaved
from qbtools.streams import Reader
from qbtools.volumes.marks import Mark

GOOD = """<qubes><labels><label id="label-1" color="0x0">red</label></labels><properties/><domains>
<domain id="domain-0" class="AdminVM"><properties><property name="label">red</property></properties></domain>{}
</domains></qubes>"""
DOMAIN = """<domain id="domain-1" class="AppVM"><properties><property name="name">{}</property>
<property name="label">red</property></properties><features><feature name="{}">{}</feature></features></domain>"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is late ends all processes below this one."""
    spare_others(monkeypatch)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Host]:
    """A host that runs text, in shell, for any verb; its warnings go to a list."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(text: str, warnings: list[str] | None = None) -> Host:
        program = tmp_path / "qb-host-test"
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
        return Host("test:some place", (warnings if warnings is not None else []).append)

    return make


def test_how_it_is_run(host: Callable[[str], Host], tmp_path: Path) -> None:
    text = f'printf "%s\\n" "$@" >{tmp_path}/arguments; cat >{tmp_path}/stdin; printf "root\\tfile:/x\\n"'
    assert host(text).create(b"<document/>" * 100_000) == [("root", "file:/x")]
    assert (tmp_path / "arguments").read_text() == "some place\ncreate\n"
    assert (tmp_path / "stdin").read_bytes() == b"<document/>" * 100_000
    host(f'printf "%s\\n" "$@" >{tmp_path}/arguments; cat >{tmp_path}/stdin').remove("work", "a mark")
    assert (tmp_path / "arguments").read_text() == "some place\nremove\nwork\na mark\n"
    assert (tmp_path / "stdin").read_bytes() == b""


def test_an_empty_argument(host: Callable[[str], Host], tmp_path: Path) -> None:
    host("")
    (tmp_path / "qb-host-test").write_text(f'#!/bin/bash\necho "$#:$1:$2" >{tmp_path}/arguments\n')
    Host("test:").remove("work", "a mark")
    assert (tmp_path / "arguments").read_text() == "4::remove\n"


def test_its_environment(host: Callable[[str], Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "start").write_text("echo noise\n")
    for name, text in {"BASH_ENV": f"{tmp_path}/start", "TAR_OPTIONS": "-h", "AWS_PROFILE": "mine"}.items():
        monkeypatch.setenv(name, text)
    host(f'printf %s "$BASH_ENV$TAR_OPTIONS$AWS_PROFILE" >{tmp_path}/seen').remove("work", "a mark")
    assert (tmp_path / "seen").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("exit 3", "qb-host-test some place files work: ended with status 3", None),
        ("kill -9 $$", "qb-host-test some place files work: was killed by signal 9", None),
        ("echo 'first' >&2; echo 'no room' >&2; exit 1", "qb-host-test some place files work: no room", None),
        (
            "printf 'qb-host-test: error: no room\\nhint: make some\\n' >&2; exit 1",
            "qb-host-test some place files work: no room",
            "make some",
        ),
    ],
)
def test_it_fails(host: Callable[[str], Host], text: str, message: str, hint: str | None) -> None:
    with pytest.raises(Failed) as caught:
        host(f"printf 'notes.txt\\t/x\\n'; {text}").files("work")
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_its_warnings(host: Callable[..., Host]) -> None:
    warnings: list[str] = []
    host("echo 'qb-host-test: warning: it is old' >&2", warnings).remove("work", "mark")
    assert warnings == ["it is old"]


def test_the_warnings_of_check_are_for_the_plan(host: Callable[..., Host]) -> None:
    """They are told when the domain is created."""
    warnings: list[str] = []
    verbs = "\\n".join([*client.VERBS, client.CHECK])
    found = host(f"[ $2 != verbs ] || exec printf '{verbs}\\n'; echo 'qb-host-test: warning: work: old' >&2", warnings)
    assert found.check(b"") == ["work: old"] == found.check(b"") and warnings == []
    found.create(b"")
    assert warnings == ["work: old"]


MANY = ["a", "b.c"]
VOLUME, FILE = "root\tfile:/x\t1\t1\tno\tyes", "notes.txt\t/n"


@pytest.mark.parametrize(
    ("lines", "domains"),
    [
        (f"a\tvolumes\t{VOLUME}\na\tfiles\t{FILE}\na\tend\nb.c\tend\n", MANY),
        (f"a\tend\nb.c\tvolumes\t{VOLUME}\nb.c\tfiles\t{FILE}\n", ["a"]),
        (f"a\tend\na\tvolumes\t{VOLUME}\nb.c\tend\n", []),
        ("a\tend\nb.c\tend\n\n", []),
        ("a\tend\nb.c\tvolumes\n", []),
        ("a\tend\nb.c\tvolumes\troot\nb.c\tend\n", []),
        ("a\tend\nb.c\tdevices\tx\nb.c\tend\n", []),
    ],
)
def test_many_domains_at_once(host: Callable[..., Host], tmp_path: Path, lines: str, domains: list[str]) -> None:
    """A domain without its end is asked for by itself, and so is each if a line is malformed."""
    (tmp_path / "answer").write_text(lines)
    verbs = "\\n".join([*client.VERBS, client.CONTENTS])
    test = host(f"case $2 in verbs) printf '{verbs}\\n' ;; *) cat >{tmp_path}/asked; cat {tmp_path}/answer ;; esac")
    found = test.contents(MANY)
    assert list(found) == domains and (tmp_path / "asked").read_text() == "a\nb.c\n"
    if domains == MANY:
        assert found == {
            "a": ([HostVolume("root", "file:/x", 1, 1, False, True)], [("notes.txt", "/n")]),
            "b.c": ([], []),
        }


def test_a_host_that_lists_one_domain_at_a_time(host: Callable[..., Host]) -> None:
    assert host(f"printf '%s\\n' {' '.join(client.VERBS)}").contents(MANY) == {}


def test_a_warning_is_told_once(host: Callable[..., Host]) -> None:
    warnings: list[str] = []
    found = host("echo 'it is old' >&2; echo $3 >&2", warnings)
    found.remove("work", "mark")
    found.remove("play", "mark")
    assert warnings == ["it is old", "work", "play"]


@pytest.mark.parametrize(
    ("verb", "lines"),
    [
        ("volumes", "root\tfile:/x\t1\t1\tno"),
        ("volumes", "root\tfile:/x\t1\t1\tno\tmaybe"),
        ("volumes", "root\t--raw\t1\t1\tno\tyes"),
        ("volumes", "root\t\t1\t1\tno\tyes"),
        ("volumes", "../x\tfile:/x\t1\t1\tno\tyes"),
        ("volumes", "root\tfile:/x\t-1\t1\tno\tyes"),
        ("volumes", "root\tfile:/x\t1\t1\tno\tyes\nroot\tfile:/y\t1\t1\tno\tyes"),
        ("files", "notes.txt"),
        ("files", "notes.txt\tx"),
        ("files", "../notes.txt\t/x"),
        ("files", "-rf\t/x"),
        ("files", "notes.txt\t/x\nnotes.txt\t/y"),
        ("create", "root"),
        ("create", "root\t-"),
        ("create", "ro ot\tfile:/x"),
        ("create", "root\tfile:/x\nroot\tfile:/y"),
        ("remove", "done"),
        ("set", "done"),
        ("defaults", "colour\tred"),
        ("defaults", "template\t../x"),
        ("verbs", "inventory\nvolumes"),
        ("inventory", "no xml"),
        ("inventory", '<!DOCTYPE x [<!ENTITY a "b">]><qubes>&a;</qubes>'),
        ("inventory", "<qubes/>"),
        ("files", "notes.txt\t/\x1b[31m"),
    ],
)
def test_it_prints_nonsense(host: Callable[[str], Host], tmp_path: Path, verb: str, lines: str) -> None:
    (tmp_path / "answer").write_text(lines + "\n")
    arguments = {"create": (b"",), "set": ("work", b""), "volumes": ("work",), "files": ("work",)}
    arguments["remove"] = ("work", "mark")
    with pytest.raises(Failed, match=f"^qb-host-test some place {verb}( work)?( mark)?: "):
        getattr(host(f"cat {tmp_path}/answer"), verb)(*arguments.get(verb, ()))


def test_a_directory_of_many_images(host: Callable[[str], Host]) -> None:
    """So many things that nobody saves must not keep a host from being saved."""
    verbs = "\\n".join(client.VERBS)
    lines = "seq -f 'work\t/home/h/work/v%.0f.img\tno volume' 200000"
    found = host(f"case $2 in verbs) printf '{verbs}\\nunsaved\\n' ;; *) {lines} ;; esac").unsaved()
    assert len(found) == 200_000


def test_it_never_stops(host: Callable[[str], Host], tmp_path: Path) -> None:
    text = f"echo $$ >{tmp_path}/pid; exec yes"
    with pytest.raises(Failed, match=f"prints more than {client.MAX_LINES} bytes"):
        host(text).files("work")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


@pytest.mark.parametrize("text", ["sleep 1000", "exec >&-; sleep 1000", "trap '' TERM; while :; do sleep 1; done"])
def test_it_hangs(host: Callable[[str], Host], text: str) -> None:
    """In the cleanup after a signal: the second call is not made."""
    hanging = host(text)
    hanging.hurry(0.3)
    with pytest.raises(Failed, match="^qb-host-test some place files work has not ended after 0.3 seconds$"):
        hanging.files("work")
    with pytest.raises(Failed, match="files work is not run, because the host does not answer$"):
        hanging.files("work")


def test_leftovers(host: Callable[[str], Host], tmp_path: Path) -> None:
    """Only if the process of the mark has certainly ended."""
    dead = Mark.own()._replace(start=1)
    marks = {
        "dead": str(dead),
        "alive": str(Mark.own()),
        "strange": "me",
        "elsewhere": str(dead._replace(host="0" * 8)),
    }
    domains = [DOMAIN.format(name, names.UNFINISHED, mark) for name, mark in marks.items()]
    domains.append(DOMAIN.format("other", "qbtools", str(dead)))
    (tmp_path / "answer").write_text(GOOD.format("".join(domains)))
    assert host(f"cat {tmp_path}/answer").leftovers() == {"dead"}


def test_what_no_run_saves(host: Callable[[str], Host], tmp_path: Path) -> None:
    told = [
        Unsaved("work", "/h/work/my notes", "why not"),
        Unsaved(None, "/h/Größe\n\t\\303", "x"),
        Unsaved("work", "/\udcff", "-"),
    ]
    lines = "".join(one.to_line() for one in told)
    assert lines.isascii() and lines.count("\n") == 3
    (tmp_path / "answer").write_text(lines)
    verbs = f"printf '%s\\n' {' '.join(client.VERBS)}"
    other = f"{verbs}; case $2 in unsaved) exit 1 ;; esac"
    assert host(other).unsaved() == []
    asked = host(f"case $2 in verbs) {verbs} unsaved ;; *) cat {tmp_path}/answer ;; esac")
    assert asked.unsaved() == told
    for bad in ("work\t/x\n", "work\t\tx\n", "work\t/x\ty\tz\n", "work\t/x\ty"):
        (tmp_path / "answer").write_text(bad)
        with pytest.raises(Failed, match="unsaved"):
            asked.unsaved()


def test_a_further_file_has_no_directory(host: Callable[[str], Host]) -> None:
    """A restore refuses such a file, so it is not saved."""
    assert host("printf 'dom0-home/user\\t/x\\n'").files("dom0") == [("dom0-home/user", "/x")]
    with pytest.raises(Failed, match="keys/k: a file of a domain has no / in its name"):
        host("printf 'keys/k\\t/x\\n'").files("work")


def test_whether_it_can_freeze(host: Callable[[str], Host]) -> None:
    assert host(f"printf '%s\\n' {' '.join(client.VERBS)}").freezer() is None
    assert host(f"printf '%s\\n' {' '.join(client.VERBS)} freeze").freezer() is None
    text = host(f"printf '%s\\n' {' '.join(client.VERBS)} freeze thaw").freezer()
    assert text is not None and text.endswith("/qb-host-test 'some place'")


@pytest.mark.parametrize("word", ["", "none:x", ":", "test:-x", "-x", "test:a\nb", "test:a\tb"])
def test_no_host(host: Callable[[str], Host], word: str) -> None:
    host("")
    with pytest.raises(UsageError):
        Host(word)


def test_a_path_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qb-host-dir").write_text('#!/bin/bash\nprintf "template\\t%s\\n" "${1//[^a-z]/}"\n')
    (tmp_path / "qb-host-dir").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for word in "./a:b", "/a/b", "ab", "A:b", "dir:a/b":
        assert Host(word).defaults().template in ("ab", "b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("printf 'root\\tfile:/x\\nvda\\tnbd:nbd+unix:///vda?socket=/y\\nend\\n'", None),
        ("printf 'end\\n'", None),
        ("printf 'root\\tfile:/x\\n'", "its last line is not end"),
        ("true", "its last line is not end"),
        ("printf 'end\\nroot\\tfile:/x\\n'", "line 2 comes after the end"),
        ("printf 'end\\nend\\n'", "line 2 comes after the end"),
        ("printf 'root\\tfile:/x\\nroot\\tfile:/x\\nend\\n'", "line 2 is not a volume and the word to read it"),
        ("printf 'root\\t-x\\nend\\n'", "line 1 is not a volume and the word to read it"),
        ("printf 'a/b\\tfile:/x\\nend\\n'", "line 1 is not a volume and the word to read it"),
        ("printf 'end\\tfile:/x\\n'", "its last line is not end"),
        ("printf 'root\\tfile:/x\\t-x\\nend\\n'", "line 1 does not tell since when the volume has changed"),
        ("printf 'root\\tfile:/x\\tnbd:x\\twhy\\nend\\n'", "line 1 does not tell since when the volume has changed"),
        ("printf 'root\\tfile:/x\\t-\\twhy\\tx\\nend\\n'", "line 1 does not tell since when the volume has changed"),
        ("printf 'root\\tfile:/x\\nen'", "its output"),
        ("printf 'end\\n'; exit 3", "ended with status 3"),
    ],
)
def test_hold(host: Callable[[str], Host], text: str, expected: str | None) -> None:
    if expected is None:
        assert list(host(text).hold("work", "mark")) in (["root", "vda"], [])
        return
    with pytest.raises(Failed) as error:
        host(text).hold("work", "mark")
    assert error.value.message.startswith("qb-host-test some place hold work mark: ")
    assert expected in error.value.message


def test_hold_with_checkpoints(host: Callable[[str], Host]) -> None:
    text = """printf 'a\\tfile:/x\\tnbd:%s\\n' "$QB_CHECKPOINT"
    printf 'b\\tfile:/x\\t-\\t%s\\n' "${QB_CHECKPOINT_BASE-no\\011}"
    printf 'c\\tfile:/x\\nend\\n'"""
    assert host(text).hold("work", "mark", "new", "old") == {
        "a": Held("file:/x", "nbd:new"), "b": Held("file:/x", "", "old"), "c": Held("file:/x")
    }  # fmt: skip
    found = host(text).hold("work", "mark")
    assert (found["a"], found["b"].reason) == (Held("file:/x", "nbd:"), "no\t")
    for name, held in found.items():
        line = "\t".join(held.fields(name)) + "\nend\n"
        assert listing.held(Reader(io.BytesIO(line.encode()))) == {name: held}


def test_forget(host: Callable[[str], Host]) -> None:
    assert host("[ $2:$3:$4 = forget:work:point ]").forget("work", "point")
    assert not host("echo later").forget("work", "point")
    for text in "echo x", "echo later; echo later", "exit 1":
        with pytest.raises(Failed):
            host(text).forget("work", "point")
    known = " ".join(client.VERBS)
    assert [host(f"printf '%s\\n' {known} {more}").forgets() for more in ("", "forget")] == [False, True]


def test_who_holds(host: Callable[[str], Host]) -> None:
    known = " ".join(client.VERBS)
    for more, expected in {"": False, "hold": False, "release": False, "hold release": True}.items():
        assert host(f"printf '%s\\n' {known} {more}").holds() == expected
    host("true").release("work", "mark")
    with pytest.raises(Failed):
        host("echo x").release("work", "mark")
