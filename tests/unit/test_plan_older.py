"""Plans for archives of Qubes OS 2 to 3.2: references and classes are converted, and sizes are not known."""

from __future__ import annotations

import io

from machines import metadata, network, template, vm

from qbtools.domains import plan, plantext, recreate, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.plan import Options
from qbtools.domains.qubesxml import Metadata
from qbtools.streams import Reader

OLDER = b"""<QubesVmCollection default_template="1" default_netvm="4">
<QubesAdminVm qid="0" name="dom0" label="black"/>
<QubesTemplateVm qid="1" name="fedora-23" label="black" template_qid="none"
  backup_content="True" backup_path="vm1" backup_size="7"/>
<QubesNetVm qid="2" name="sys-net" label="red" template_qid="1" netvm_qid="none"/>
<QubesProxyVm qid="4" name="sys-firewall" label="red" template_qid="1" uses_default_netvm="False" netvm_qid="2"
  backup_content="True" backup_path="vm4" backup_size="7"/>
<QubesAppVm qid="5" name="work" label="red" template_qid="1" uses_default_netvm="False" netvm_qid="4"
  uses_default_kernel="False" kernel="4.4.14-11" backup_content="True" backup_path="vm5" backup_size="7"/>
<QubesAppVm qid="6" name="vault" label="red" template_qid="none" uses_default_netvm="False" netvm_qid="none"
  backup_content="True" backup_path="vm6" backup_size="7"/>
</QubesVmCollection>"""
HOST = metadata(template("fedora-42", saved=False), network("sys-firewall", saved=False), vm("work", saved=False))
DEFAULTS = Defaults("fedora-42", "sys-firewall", None, ("6.12",))


def test_an_older_archive() -> None:
    archive = Metadata(safexml.parse(OLDER))
    found = plan.make(archive, HOST, DEFAULTS, Options(exclude=["fedora-23"]))
    text = plantext.to_text(found)
    assert [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:-1] == [
        ["skip", "fedora-23", "fedora-23", "TemplateVM", "-", "default", "default", "default", "-", "-"],
        # The network that it had is not there: that of the host takes its place.
        ["create", "sys-firewall", "sys-firewall-1", "AppVM", "fedora-42", "default", "default", "default", "-", "-"],
        ["create", "work", "work-1", "AppVM", "fedora-42", "sys-firewall-1", "default", "default", "-", "-"],
        ["create", "vault", "vault", "StandaloneVM", "-", "-", "default", "default", "-", "-"],
    ]
    assert "#   work-1: kernel: 4.4.14-11 → default (6.12)\n" in text
    assert plantext.read(Reader(io.BytesIO(text.encode())), archive) == [line.written for line in found.lines]
    for line in found.creates:
        document = recreate.document(archive, found, [line], True, None)
        domain = Metadata(safexml.parse(document)).by_name[line.name]
        assert domain.properties.get("template") == line.written.template
        assert [volume.name for volume in domain.volumes()] == ["root", "private", "volatile"]
        assert not any(name.startswith("backup-") for name in domain.features)
