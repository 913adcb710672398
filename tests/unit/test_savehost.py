"""qb-backup create --host --each: an archive for each domain, each with a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import document

from qbtools.commands.backup import savehost
from qbtools.domains import safexml
from qbtools.domains.qubesxml import Metadata
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
