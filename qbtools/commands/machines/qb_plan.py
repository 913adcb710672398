"""qb-plan: makes and checks a restore plan for the domains in an archive."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import file_reader

if TYPE_CHECKING:
    from qbtools.domains.plan import Options

DOC = f"""\
Usage:
  qb-plan [options] --metadata XML --host HOST
          [--include PATTERN]... [--exclude PATTERN]... [--rename A=B]...
  qb-plan [options] --check PLAN --metadata XML --host HOST
  qb-plan (-h | --help | --version)

Print a plan for restoring the domains of an archive to a host: a line for each,
with its name there, its template and so on. The plan can be changed by hand and
checked again. What is missing on the host is replaced by its default. A domain that
cannot be created has a problem in its line; then the status is 5.

Options:
  --metadata XML        The archive's metadata, qubes.xml; - is standard input.
  --host HOST           The host: NAME:ARGUMENT (the program qb-host-NAME), or a
                        directory.
  --check PLAN          Check the plan in this file, and print it as it is now.
{options.SELECTING}
{options.PLANNING}
{options.JSON}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Prints a plan. Refused, after printing it, if it has a problem; Damaged if it is malformed."""
    from qbtools.domains import plan, plantext, qubesxml, safexml
    from qbtools.hosts import restoring
    from qbtools.hosts.client import Host

    asked = wishes(call)
    source = call.options["--metadata"]
    archive = qubesxml.Metadata(safexml.load(call.input(source)), call.warn)
    written = None
    if call.options["--check"] is not None:
        written = plantext.read(file_reader(call.options["--check"]), archive)
    host = Host(call.options["--host"], call.warn)
    inventory, defaults = host.inventory(), host.defaults()
    leftovers = host.leftovers(inventory)
    if written is None:
        made = plan.make(archive, inventory, defaults, asked, leftovers, call.warn)
    else:
        made = plan.check(archive, inventory, defaults, asked, written, leftovers)
    made = restoring.noted(host, archive, made, call.warn)
    if call.options["--json"]:
        import json

        text = json.dumps(plantext.as_document(made), indent=2) + "\n"
    else:
        text = plantext.to_text(made)
    call.stdout(binary=False).write(text.encode())
    call.note(f"{len(made.creates)} of {len(made.lines)} saved domains will be restored")
    made.check()


def wishes(call: Invocation) -> Options:
    """The options for a plan. UsageError if one is invalid."""
    from qbtools.domains.plan import NETVM_CHOICES, Options
    from qbtools.errors import UsageError

    given = call.options
    if given["--netvm"] not in NETVM_CHOICES:
        raise UsageError(f"--netvm: must be one of {', '.join(NETVM_CHOICES)}")
    rename: dict[str, str] = {}
    for word in given["--rename"]:
        old, equals, new = word.partition("=")
        if not equals or old in rename:
            raise UsageError(f"--rename: {word} is {'given twice' if equals else 'not OLD=NEW'}")
        rename[old] = new
    return Options(
        include=given["--include"],
        exclude=given["--exclude"],
        rename=rename,
        default_template=given["--default-template"],
        netvm=given["--netvm"],
        no_rename=given["--no-rename"],
        skip_broken=given["--skip-broken"],
        ignore_missing=given["--ignore-missing"],
    )
