"""Plans for many domains: every reference is right. An independent walk through the plan checks this."""

from __future__ import annotations

import io
import random

import pytest
from machines import disposable, metadata, network, template, vm

from qbtools.domains import plan, plantext, recreate, safexml, verifier
from qbtools.domains.defaults import Defaults
from qbtools.domains.plan import Options
from qbtools.domains.planlines import Plan
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.streams import Reader

DEFAULTS = Defaults("debian-0", "net-0", "dvm-0")


def machines(chance: random.Random, count: int) -> list[tuple[str, str]]:
    """Name and XML: templates, chains of networks, templates for DispVMs, DispVMs; names that clash when cut."""
    found = []
    templates = [f"debian-{i}" for i in range(count // 10)]
    nets = [f"net-{i}" for i in range(count // 5)]
    dvms = [f"dvm-{i}" for i in range(count // 10)]
    for name in templates:
        found.append((name, template(name, netvm="")))
    for i, name in enumerate(nets):
        behind = chance.choice(["", nets[max(i - 1, 0)]]) if i % 7 else ""
        found.append((name, network(name, template=chance.choice(templates), netvm=behind)))
    for name in dvms:
        found.append((name, disposable(name, template=chance.choice(templates), netvm=chance.choice(nets))))
    while len(found) < count:
        i = len(found)
        name = f"work-{'x' * chance.choice([0, 20, 26])}{i}"[:31]
        if any(name == other for other, _ in found):
            continue
        if i % 9 == 0:
            found.append((name, vm(name, "DispVM", template=chance.choice(dvms), netvm=chance.choice(nets))))
            continue
        more = {"audiovm": chance.choice(nets)} if i % 4 == 0 else {}
        used = chance.choice(nets), chance.choice(dvms)
        text = vm(name, template=chance.choice(templates), netvm=used[0], default_dispvm=used[1], **more)
        found.append((name, text))
    chance.shuffle(found)
    return found


def carry_out(archive: Metadata, host: Metadata, found: Plan) -> dict[str, Domain]:
    """The host after the plan has been carried out, computed only from the documents."""
    there = dict(host.by_name)
    for line in found.creates:
        document = recreate.document(archive, found, [line], False, "mark")
        made = Metadata(safexml.parse(document)).domains[1]
        assert made.name not in there, f"{made.name} is made twice, or over one that was there"
        if "template" in made.properties:
            assert made.properties["template"] in there, "a template is made before those that use it"
        there[made.name] = made
    for line in found.creates:
        made = Metadata(safexml.parse(recreate.document(archive, found, [line], True, None))).domains[1]
        there[made.name] = made
    return there


def walk(there: dict[str, Domain]) -> None:
    """Every reference names a suitable domain; no machine is its own netvm, even indirectly; every name is valid."""
    for name, domain in there.items():
        assert (
            len(name) <= 31
            and name[0].isalpha()
            and set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        )
        used = domain.properties
        if domain.kind in ("AppVM", "DispVM"):
            below = there[used["template"]]
            if domain.kind == "AppVM":
                assert below.kind == "TemplateVM"
            else:
                assert below.properties["template_for_dispvms"] == "True"
        if used.get("default_dispvm"):
            assert there[used["default_dispvm"]].properties["template_for_dispvms"] == "True"
        if used.get("audiovm"):
            assert used["audiovm"] in there
        steps = 0
        while used.get("netvm"):
            used = there[used["netvm"]].properties
            assert used["provides_network"] == "True"
            steps += 1
            assert steps <= len(there), "a loop"


@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_domains_to_a_host_that_has_half_of_them(seed: int) -> None:
    chance = random.Random(seed)
    all_ = machines(chance, 200)
    archive = metadata(*(text for _, text in all_))
    first = [text for name, text in all_ if name in ("debian-0", "net-0", "dvm-0")]
    there = [text for name, text in all_ if name not in ("debian-0", "net-0", "dvm-0")][:97]
    # What the host has names others that it has, or nothing: it is a host of its own.
    host_names = {name for name, text in all_ if text in first or text in there}
    host = metadata(*(sound(archive.by_name[name], host_names) for name in sorted(host_names)))
    found = plan.make(archive, host, DEFAULTS, Options())
    assert found.problems == [] and len(found.creates) == 200
    assert sum(line.name != line.domain for line in found.lines) >= 100
    after = carry_out(archive, host, found)
    assert len(after) == len(host.domains) + 200
    walk(after)
    renamed = {line.domain: line.name for line in found.lines}
    for line in found.lines:  # all of them are restored: all references follow
        old, new = archive.by_name[line.domain].properties, after[line.name].properties
        for role in ("template", "netvm", "default_dispvm", "audiovm"):
            assert new.get(role) == renamed.get(old.get(role, ""), old.get(role))
    # The plan is followed when it is read again, and nothing changes.
    text = plantext.to_text(found)
    again = plan.check(archive, host, DEFAULTS, Options(), plantext.read(Reader(io.BytesIO(text.encode())), archive))
    assert (plantext.to_text(again), again.changed) == (text, [])


@pytest.mark.parametrize("seed", range(12))
def test_any_selection_ends_in_a_host_that_is_sound(seed: int) -> None:
    chance = random.Random(seed)
    all_ = machines(chance, 60)
    archive = metadata(*(text for _, text in all_))
    host_names = {name for name, _ in chance.sample(all_, 30)} | {"debian-0", "net-0", "dvm-0"}
    host = metadata(*(sound(archive.by_name[name], host_names) for name in sorted(host_names)))
    options = Options(
        exclude=[name for name, _ in chance.sample(all_, 20)],
        netvm=chance.choice(plan.NETVM_CHOICES),
        default_template=chance.choice(["default", "none"]),
        no_rename=chance.random() < 0.3,
        skip_broken=True,
    )
    found = plan.make(archive, host, chance.choice([DEFAULTS, Defaults()]), options)
    assert found.problems == []
    walk(carry_out(archive, host, found))


@pytest.mark.parametrize("seed", range(6))
def test_the_order_in_the_archive_means_nothing(seed: int) -> None:
    """The order does not change which domains can be created, and how; only new names differ."""
    chance = random.Random(seed)
    texts = dict(machines(chance, 80))
    for _ in range(4):  # loops, and who has lost its network
        one, other = chance.sample([name for name in texts if name.startswith("net-")], 2)
        texts[one] = network(one, template="debian-0", netvm=other)
        texts[other] = network(other, template="debian-1", netvm=one)
    options = Options(exclude=chance.sample(list(texts), 10), netvm=chance.choice(["keep", "default"]), no_rename=True)
    host = metadata(template("debian-0", saved=False), network("net-0", saved=False))
    outcomes = []
    for _ in range(4):
        order = chance.sample(list(texts), len(texts))
        found = plan.make(metadata(*(texts[name] for name in order)), host, DEFAULTS, options)
        outcomes.append({line.domain: (line.written, line.problem is None) for line in found.lines})
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert {good for _, good in outcomes[0].values()} == {True, False}


def sound(domain: Domain, there: set[str]) -> str:
    """The domain on such a host: with its own references, or with the defaults of the host."""
    table = {name: text for name, text in domain.properties.items() if name not in ("name", "label")}
    for role in ("netvm", "default_dispvm", "audiovm"):
        if table.get(role) not in there:
            table.pop(role, None)
    if domain.kind in ("AppVM", "DispVM") and table["template"] not in there:
        table["template"] = "debian-0" if domain.kind == "AppVM" else "dvm-0"
    return vm(domain.name, domain.kind, saved=False, **table)


def counted(archive: Metadata, host: Metadata, monkeypatch: pytest.MonkeyPatch, **options: object) -> tuple[Plan, int]:
    """A plan, and how often it had to look at a domain."""
    looks: list[None] = []
    original = verifier.Verifier._look_at

    def look(self: verifier.Verifier, row: object) -> None:
        looks.append(None)
        original(self, row)  # type: ignore[arg-type]

    monkeypatch.setattr(verifier.Verifier, "_look_at", look)
    found = plan.make(archive, host, DEFAULTS, Options(**options))  # type: ignore[arg-type]
    return found, len(looks)


def chain(count: int, forwards: bool) -> Metadata:
    texts = [network(f"n{i}", template="t", netvm=f"n{i + 1}") for i in range(count)]
    return metadata(*(texts if forwards else texts[::-1]), template("t"))


@pytest.mark.parametrize("forwards", [True, False])
def test_a_chain_that_breaks_at_its_end_costs_a_step_a_domain(forwards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, the work is proportional to domains and references, not to their square."""
    found, looks = counted(chain(2000, forwards), metadata(), monkeypatch, netvm="keep")
    assert len(found.problems) == 2000
    assert looks <= 2 * 2001


def test_a_loop_of_two_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [network(f"n{i}", template="t", netvm=f"n{(i + 1) % 2000}") for i in range(2000)]
    found, looks = counted(metadata(*texts, template("t")), metadata(), monkeypatch)
    assert {line.problem for line in found.problems} == {"netvm: a loop of 2000: n0, n1, n2, n3, ..."}
    assert looks <= 2 * 2001


def test_two_thousand_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    archive = metadata(*(text for _, text in machines(chance, 2000)))
    others = [name for name in archive.by_name if name not in ("dom0", "debian-0")][:1500]
    host = metadata(template("debian-0", saved=False), *(vm(name, saved=False) for name in others))
    found, looks = counted(archive, host, monkeypatch)
    assert len(found.lines) == 2000
    assert looks <= 4 * 2000
