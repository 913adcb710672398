"""What qb-host(7) says of every host, as tests: a module has a class that inherits them, with a fixture `place`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest
from support import environment, run

from qbtools.domains import defaults, names, safexml
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.errors import QbError
from qbtools.hosts import client, listing
from qbtools.hosts.listing import HostVolume
from qbtools.streams import Reader
from qbtools.volumes import locate
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Mark

MiB = 1 << 20
PREFIX = "qbtest-"
"""How the names of all domains begin that the tests make."""


class Place:
    """A host to be tested. argv: how it is run, up to the verb."""

    def __init__(self, *argv: str) -> None:
        self.argv = argv
        self._first: Metadata | None = None

    def run(self, *words: str, data: bytes = b"") -> tuple[int, bytes, str]:
        """Status, standard output and standard error of a program."""
        done = run(*words, data=data)
        return done.returncode, done.stdout, done.stderr.decode()

    def ask(self, *words: str, data: bytes = b"") -> tuple[int, bytes, str]:
        """The same of the host with a verb."""
        return self.run(*self.argv, *words, data=data)

    def killed(self, seconds: float, *words: str, data: bytes = b"") -> None:
        """Begins a verb; after so long it is killed with all that it has started."""
        process = subprocess.Popen(
            [*self.argv, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def good(self, *words: str, data: bytes = b"") -> Reader:
        """What the host prints; the test fails where it fails."""
        status, out, err = self.ask(*words, data=data)
        assert (status, err) == (0, ""), words
        return Reader(io.BytesIO(out), "its output")

    def bad(self, *words: str, data: bytes = b"") -> str:
        """The last line that it says where it has to fail; nothing on the host changes by that."""
        before = self.state()
        status, _, err = self.ask(*words, data=data)
        assert status != 0 and err.strip(), words
        assert self.state() == before
        return err.splitlines()[-1]

    def state(self) -> object:
        """What a verb that fails must not change."""
        return self.ask("inventory")[1]

    def inventory(self) -> Metadata:
        return Metadata(safexml.load(self.good("inventory")))

    def domain(self, name: str) -> Domain:
        return self.inventory().by_name[PREFIX + name]

    def volumes(self, name: str) -> dict[str, HostVolume]:
        return {volume.name: volume for volume in listing.volumes(self.good("volumes", PREFIX + name))}

    def create(self, name: str, **sizes: int | None) -> dict[str, str]:
        """Makes an unfinished domain; the target of each volume."""
        return dict(client._targets(self.good("create", data=self.document(name, sizes))))

    def document(
        self,
        name: str,
        sizes: Mapping[str, int | None],
        properties: Mapping[str, str] | None = None,
        unfinished: bool = True,
        kind: str = "StandaloneVM",
    ) -> bytes:
        inventory = self._first = self._first or self.inventory()  # its labels do not change
        root = Element("qubes")
        root.extend(inventory.root.findall("labels"))
        SubElement(root, "properties")
        domains = SubElement(root, "domains")
        for number, label, which in ((0, inventory.by_name["dom0"].label, "AdminVM"), (1, inventory.labels[0], kind)):
            domain = SubElement(domains, "domain", {"id": f"domain-{number}", "class": which})
            table = SubElement(domain, "properties")
            SubElement(table, "property", name="label").text = label
        for key, text in {"name": PREFIX + name, **(properties or {})}.items():
            SubElement(table, "property", name=key).text = text
        features = SubElement(domain, "features")
        SubElement(features, "feature", name="service.ntp").text = "1"
        if unfinished:
            SubElement(features, "feature", name=names.UNFINISHED).text = str(Mark.own())
        config = SubElement(domain, "volume-config")
        for volume, size in sizes.items():
            attributes = {} if size is None else {"size": str(size)}
            SubElement(config, "volume", {"name": volume, "rw": "True", "save_on_stop": "True", **attributes})
        SubElement(config, "volume", {"name": "volatile", "rw": "True", "save_on_stop": "False", "size": str(MiB)})
        return tostring(root)

    def finish(self, name: str) -> None:
        sizes = {volume: found.size for volume, found in self.volumes(name).items()}
        self.good("set", PREFIX + name, data=self.document(name, sizes, unfinished=False))

    def clean(self) -> None:
        """Removes what the tests have made: all that is unfinished, or can be made so."""
        for domain in self.inventory().domains:
            if domain.name.startswith(PREFIX):
                self.ask("remove", domain.name)


def holds(word: str, size: int, data: bytes = b"") -> bool:
    """Whether a volume has at least size bytes: data, then zeros."""
    with locate.open_source(word, SourceOptions(state="current")) as source:
        found = os.pread(source.fd, size + 1, 0)
        return source.size >= size and found.startswith(data) and not found[len(data) :].strip(b"\0")


class Protocol:
    """All tests. `place` is a host on which nothing is that would be missed."""

    kills = 8
    """How often a verb is killed."""
    together = 4
    """How many domains are made, two at a time."""
    finishing = True
    """Whether tests may finish domains, which then cannot be removed by verbs."""

    @pytest.fixture(autouse=True)
    def _cleaned(self, place: Place) -> Iterator[None]:
        yield
        place.clean()

    def test_verbs(self, place: Place) -> None:
        assert set(client.VERBS) <= client._verbs(place.good("verbs"))
        place.bad("no-such-verb")

    def test_hold_and_release(self, place: Place) -> None:
        found = client._verbs(place.good("verbs"))
        assert ("hold" in found) == ("release" in found)
        if "hold" not in found:
            place.bad("hold", f"{PREFIX}held", "mark")
            return
        targets = place.create("held", root=4 * MiB, private=MiB)
        write = "qb-volwrite", "--raw", "--overwrite", "--shrink"
        assert place.run(*write, targets["root"], data=b"old" + bytes(4 * MiB))[0] == 0
        name, mark, other = f"{PREFIX}held", str(Mark.own()), str(Mark.own()._replace(start=1))
        place.good("release", name, mark)
        words = {volume: held.word for volume, held in listing.held(place.good("hold", name, mark)).items()}
        assert words.keys() == {"root", "private"}
        assert place.domain("held").features.get(names.HELD, mark) == mark
        assert place.run(*write, targets["root"], data=b"new" + bytes(4 * MiB))[0] == 0
        place.good("release", name, other)
        if words["root"] != place.volumes("held")["root"].source:  # else the machine is off, and nothing is held
            assert holds(words["root"], 4 * MiB, b"old")
        if names.HELD in place.domain("held").features:
            place.bad("hold", name, other)
        for _ in range(2):
            place.good("release", name, mark)
            assert names.HELD not in place.domain("held").features
        place.good("release", f"{PREFIX}missing", mark)
        place.bad("hold", f"{PREFIX}missing", mark)

    def test_checkpoints(self, place: Place) -> None:
        """The tests have no machine that runs, so the host may make none. All the same it is held."""
        name, point, mark = f"{PREFIX}pointed", f"qbtools-kept-{uuid.uuid4().hex}", str(Mark.own())
        if "forget" not in client._verbs(place.good("verbs")):
            place.bad("forget", name, point)
            return
        place.create("pointed", root=MiB)
        for settings in [f"QB_CHECKPOINT={point}"], [f"QB_CHECKPOINT={point}2", f"QB_CHECKPOINT_BASE={point}"]:
            status, out, err = place.run("env", *settings, *place.argv, "hold", name, mark)
            assert (status, err) == (0, "")
            assert listing.held(Reader(io.BytesIO(out), "its output")).keys() == {"root"}
            place.good("release", name, mark)
        for word in point, f"{point}2", point:
            assert client._forgotten(place.good("forget", name, word))
        assert client._forgotten(place.good("forget", f"{PREFIX}missing", point))
        place.bad("forget", name, "theirs")

    def test_what_is_there(self, place: Place) -> None:
        assert place.inventory().by_name["dom0"].kind == names.ADMIN_CLASS
        defaults.read(place.good("defaults"))
        for verb in "volumes", "files", "set":
            place.bad(verb, f"{PREFIX}missing", data=place.document("missing", {}) if verb == "set" else b"")

    def test_a_domain_is_made_with_fresh_volumes(self, place: Place) -> None:
        targets = place.create("made", root=3 * MiB, private=MiB, unknown=None)
        domain = place.domain("made")
        assert (domain.kind, domain.features["service.ntp"]) == ("StandaloneVM", "1")
        assert domain.features[names.UNFINISHED] == str(Mark.own())
        assert [volume.name for volume in domain.volumes() if volume.save_on_stop] == ["root", "private", "unknown"]
        volumes = place.volumes("made")
        assert targets.keys() == {"root", "private", "unknown"} == volumes.keys()
        for name, size in {"root": 3 * MiB, "private": MiB}.items():
            volume = volumes[name]
            assert (volume.size >= size, volume.used < size, volume.running, volume.save) == (True, True, False, True)
            assert holds(volume.source, size)
        listing.files(place.good("files", f"{PREFIX}made"))
        others = [one.properties.get("qid") for one in place.inventory().domains if one.name != domain.name]
        assert domain.properties["qid"].isdigit() and domain.properties["qid"] not in others

    def test_what_belongs_to_many_domains(self, place: Place) -> None:
        """As the verbs for one domain say it. A domain that does not exist is left out."""
        if client.CONTENTS not in client._verbs(place.good("verbs")):
            return
        place.create("one", root=MiB, private=None)
        place.create("two", root=MiB)
        asked = [PREFIX + name for name in ("two", "missing", "one")]
        found = listing.contents(place.good("contents", data="".join(f"{name}\n" for name in asked).encode()))
        assert found == {
            name: (listing.volumes(place.good("volumes", name)), listing.files(place.good("files", name)))
            for name in (asked[0], asked[2])
        }
        assert listing.contents(place.good("contents")) == {}
        for data in b"a/b\n", b"one\ttwo\n", b"one":
            place.bad("contents", data=data)

    def test_a_volume_is_filled_and_changes_its_size(self, place: Place) -> None:
        targets = place.create("filled", root=8 * MiB, private=None)
        data = b"data" + os.urandom(5 * MiB)
        for name in "root", "private":
            args = "--raw", "--overwrite", "--shrink", targets[name]
            status, printed, said = place.run("qb-volwrite", *args, data=data)
            assert (status, printed) == (0, b"")
            assert not said or " shrinks from " in said
            volume = place.volumes("filled")[name]
            assert len(data) <= volume.size <= 8 * MiB + (4 * MiB if name == "private" else 0)
            assert len(data) - MiB < volume.used < volume.size + MiB
            assert holds(volume.source, len(data), data)

    def test_a_name_that_is_taken(self, place: Place) -> None:
        place.create("taken", root=MiB)
        place.bad("create", data=place.document("taken", {"root": 2 * MiB, "private": MiB}))
        assert place.volumes("taken").keys() == {"root"}
        assert place.volumes("taken")["root"].size < 5 * MiB

    def test_names_that_run_into_each_other(self, place: Place) -> None:
        """vm-a-b-private can be the volume b-private of a, and private of a-b."""
        place.create("a", **{"b-private": MiB})
        before = place.volumes("a")
        if place.ask("create", data=place.document("a-b", {"private": 9 * MiB}))[0]:
            assert f"{PREFIX}a-b" not in place.inventory().by_name
        assert place.ask("remove", f"{PREFIX}a-b")[0] == 0
        assert place.volumes("a") == before

    def test_check(self, place: Place) -> None:
        """It fails if create would, and changes nothing."""
        if client.CHECK not in client._verbs(place.good("verbs")):
            return
        document = place.document("checked", {"root": MiB})
        before = place.state()
        assert place.good("check", data=document).at_eof()
        assert place.state() == before
        place.create("checked", root=MiB)
        assert f"{PREFIX}checked" in place.bad("check", data=document)
        for data in b"", b"<qubes/>", b"no xml":
            place.bad("check", data=data)

    def test_set_replaces_all_but_the_volumes(self, place: Place) -> None:
        place.create("netvm", private=MiB)
        place.create("user", private=MiB)
        qid = place.domain("user").properties["qid"]
        volumes = place.volumes("user")
        other = {"netvm": f"{PREFIX}netvm", "memory": "400"}
        place.good("set", f"{PREFIX}user", data=place.document("user", {"private": MiB}, other))
        found = place.domain("user")
        assert found.properties.items() >= {**other, "qid": qid}.items()
        assert names.UNFINISHED in found.features
        place.good("set", f"{PREFIX}user", data=place.document("user", {"private": MiB}, {"memory": "300"}))
        found = place.domain("user")
        assert found.properties["memory"] == "300" and "netvm" not in found.properties
        assert place.volumes("user") == volumes
        place.bad("set", f"{PREFIX}user", data=place.document("netvm", {}))

    def test_what_is_finished_is_not_touched(self, place: Place) -> None:
        if not self.finishing:
            return
        place.create("whole", private=MiB)
        place.finish("whole")
        domain, volumes = place.domain("whole"), place.volumes("whole")
        assert names.UNFINISHED not in domain.features
        place.bad("remove", f"{PREFIX}whole")
        place.bad("set", f"{PREFIX}whole", data=place.document("whole", {}))
        place.bad("create", data=place.document("whole", {"private": MiB}))
        assert place.volumes("whole") == volumes

    def test_remove(self, place: Place) -> None:
        targets = place.create("gone", root=MiB, private=MiB)
        place.create("stays", root=MiB)
        assert place.good("remove", f"{PREFIX}gone").at_eof()
        assert f"{PREFIX}gone" not in place.inventory().by_name
        assert place.volumes("stays").keys() == {"root"}
        for target in targets.values():
            kind, name = locate.existing(target)
            with pytest.raises(QbError):
                kind.sizes(name, SourceOptions())
        assert place.good("remove", f"{PREFIX}gone").at_eof(), "nothing is to be done"
        place.create("gone", root=MiB)

    def test_remove_only_what_bears_the_mark(self, place: Place) -> None:
        """Two runs that want the same name: who comes too late must not remove what the other has made."""
        place.create("theirs", root=MiB)
        before = place.volumes("theirs")
        other = Mark.own()._replace(start=1)
        assert place.good("remove", f"{PREFIX}theirs", str(other)).at_eof()
        assert place.volumes("theirs") == before
        assert place.good("remove", f"{PREFIX}theirs", str(Mark.own())).at_eof()
        assert f"{PREFIX}theirs" not in place.inventory().by_name
        assert place.good("remove", f"{PREFIX}theirs", str(Mark.own())).at_eof(), "nothing is to be done"

    def test_no_document(self, place: Place) -> None:
        place.create("some", root=MiB)
        before = place.state()
        for data in b"", b"<qubes/>", b"no xml":
            for words in ("create",), ("set", f"{PREFIX}some"):
                status, _, err = place.ask(*words, data=data)
                assert status != 0 and err.strip(), (words, data)
        assert place.state() == before

    def test_killed_while_it_makes_one(self, place: Place) -> None:
        """At whatever moment: the inventory is whole, a domain in it has its volumes, a second run completes."""
        document = place.document("killed", {"root": MiB, "private": MiB})
        for number in range(self.kills):
            place.killed(0.16 * number / self.kills, "create", data=document)
            if f"{PREFIX}killed" in place.inventory().by_name:
                assert place.volumes("killed").keys() == {"root", "private"}
                place.good("remove", f"{PREFIX}killed")
            place.good("create", data=document)
            assert place.volumes("killed").keys() == {"root", "private"}
            place.good("remove", f"{PREFIX}killed")

    def test_killed_while_it_removes_one(self, place: Place) -> None:
        document = place.document("killed", {"root": MiB, "private": MiB})
        for number in range(self.kills):
            place.good("create", data=document)
            place.killed(0.16 * number / self.kills, "remove", f"{PREFIX}killed")
            place.inventory()
            place.good("remove", f"{PREFIX}killed")
            assert f"{PREFIX}killed" not in place.inventory().by_name

    def test_two_at_a_time(self, place: Place) -> None:
        """Both that change something do so."""
        from concurrent.futures import ThreadPoolExecutor

        documents = [place.document(f"two-{number}", {"root": MiB}) for number in range(self.together)]
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda document: place.ask("create", data=document)[0], documents))
        assert results == [0] * self.together
        found = place.inventory().by_name
        made = [f"{PREFIX}two-{number}" for number in range(self.together)]
        assert set(made) <= found.keys()
        assert len({found[name].properties["qid"] for name in made}) == self.together
