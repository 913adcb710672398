"""qb-backup create --host: an archive for each domain, each with a file of its own; the order in a series."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import document, vm

from qbtools.commands.backup import savehost
from qbtools.domains import safexml
from qbtools.domains.qubesxml import Metadata
from qbtools.hosts.listing import HostVolume
from qbtools.hosts.saving import Machine
from qbtools.runs.savinghost import Survey
from qbtools.volumes import spots


def survey(*names: str) -> Survey:
    machines = [Machine(name, "AppVM", (), (), "stopped", []) for name in names]
    return Survey(machines, (), (), (), Metadata(safexml.parse(document())), None)


@pytest.mark.parametrize("folding", ["archives", "receipts"])
def test_domains_whose_files_would_be_one(folding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on vfat. The first one is saved."""
    for name in ("archives", "receipts"):
        (tmp_path / name).mkdir()
    places = str(tmp_path / "archives"), str(tmp_path / "receipts")
    found = savehost._without_taken(survey("web", "Web", "mail"), *places)
    assert ([one.name for one in found.machines], found.failing) == (["web", "Web", "mail"], [])
    monkeypatch.setattr(spots, "are_one", lambda directory, *_names: directory == str(tmp_path / folding))
    found = savehost._without_taken(survey("web", "Web", "mail"), *places)
    assert [one.name for one in found.machines] == ["web", "mail"]
    assert [one.name for one in found.failing] == ["Web"]
    assert found.failing[0].reason.endswith("archives/Web.qbk: the file system confuses its name and web")


def test_the_order_of_files_in_a_series(tmp_path: Path) -> None:
    """It depends on numbers and names alone."""
    (tmp_path / "home").mkdir()
    home = Machine("dom0", "AdminVM", (), [("dom0-home/user", 0, str(tmp_path / "home"))], "stopped")
    volumes = [HostVolume(name, f"file:/{name}", 512, 0, False, True) for name in ("root", "private")]
    further = [(name, 0, str(tmp_path / name)) for name in ("b", "a")]
    web, mail = (Machine(name, "StandaloneVM", volumes, further, "stopped") for name in ("web", "mail"))
    known = Metadata(safexml.parse(document(vm("web"), vm("mail"))))
    numbers = {"mail": 2, "gone": 3, "web": 10}
    wanted = [f"vm{number}/{name}" for number in (2, 10) for name in ("private.img", "root.img", "a", "b")]
    for machines in ([home, web, mail], [mail, home, web]):
        found = Survey(machines, (), (), (), known, None).archive(numbers)
        assert [file.archive_name for file in found.files] == [*wanted, "dom0-home/user"]
