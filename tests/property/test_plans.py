"""Restore plans: no mutation of a plan gets an unsafe name through, and whatever is planned can be read again."""

from __future__ import annotations

import contextlib
import io
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from machines import disposable, metadata, network, template, vm

from qbtools.domains import plan, plantext
from qbtools.domains.defaults import Defaults
from qbtools.domains.plan import Options
from qbtools.errors import Damaged
from qbtools.streams import Reader

ARCHIVE = metadata(
    vm("work", template="t", netvm="net", default_dispvm="dvm"),
    vm("disp", "DispVM", template="dvm"),
    template("t"),
    network("net", template="t", netvm=""),
    disposable("dvm", template="t"),
)
HOST = metadata(template("t", saved=False), vm("work", saved=False), network("net", saved=False))
DEFAULTS = Defaults("t", "net")
TEXT = plantext.to_text(plan.make(ARCHIVE, HOST, DEFAULTS, Options())).encode()
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}")
WORD = re.compile(r"[A-Za-z0-9_][!-~]*")

names = st.sampled_from(["a", "b", "c", "d", "a-1", "none", "default", "x" * 31, "../x", "", "-rf", "e\nend\n", "dom0"])
kinds = st.sampled_from(["AppVM", "TemplateVM", "StandaloneVM", "DispVM", "OtherVM"])


@st.composite
def machines(draw: st.DrawFn) -> list[str]:
    found = []
    for name in draw(st.lists(st.sampled_from(["a", "b", "c", "d", "a-1", "none", "x" * 31]), unique=True, min_size=1)):
        roles = draw(st.dictionaries(st.sampled_from(["template", "netvm", "default_dispvm", "audiovm"]), names))
        flags = draw(st.dictionaries(st.sampled_from(["provides_network", "template_for_dispvms"]), st.just("True")))
        found.append(vm(name, draw(kinds), **roles, **flags))
    return found


def read(data: bytes) -> list[plantext.Written]:
    return plantext.read(Reader(io.BytesIO(data)), ARCHIVE)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutation_is_refused_or_harmless(data: st.DataObject) -> None:
    text = bytearray(TEXT)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"\t", b"-", b"\n"])
        )
    with contextlib.suppress(Damaged):
        for one in read(bytes(text)):
            assert one.action in ("create", "skip")
            assert NAME.fullmatch(one.domain) and NAME.fullmatch(one.name)
            assert all(name is None or NAME.fullmatch(name) for name in one[3:6])
            assert one.kernel is None or WORD.fullmatch(one.kernel)
        found = plan.check(ARCHIVE, HOST, DEFAULTS, Options(), read(bytes(text)))
        if not found.problems:
            made = [line.name for line in found.creates]
            assert len(set(made)) == len(made) and not set(made) & HOST.by_name.keys()


@settings(max_examples=200, deadline=None)
@given(machines(), machines(), names, names, st.booleans(), st.booleans())
def test_any_plan_is_read_again_and_stays_as_it_is(
    archived: list[str], there: list[str], default: str, netvm: str, ignore: bool, no_rename: bool
) -> None:
    archive, host = metadata(*archived), metadata(*there)
    options = Options(ignore_missing=ignore, no_rename=no_rename)
    found = plan.make(archive, host, Defaults(default, netvm, default), options)
    text = plantext.to_text(found)
    written = plantext.read(Reader(io.BytesIO(text.encode())), archive)
    assert written == [line.written for line in found.lines]
    again = plan.check(archive, host, Defaults(default, netvm, default), options, written)
    for first, second in zip(found.lines, again.lines, strict=True):
        if first.problem is None:
            assert (second.written, second.problem) == (first.written, None)
