"""What the verbs of the hosts that come with qbtools read and print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from qbtools.domains import names, safexml
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.errors import Damaged, Failed, QbError, Refused


def sole(document: bytes) -> Domain:
    """The domain of a document apart from dom0. Damaged if there is not exactly one; its name must be valid."""
    domains = several(document)
    if len(domains) != 1:
        raise Damaged(f"the document has {len(domains)} domains, not one")
    return domains[0]


def several(document: bytes) -> list[Domain]:
    """The domains of a document apart from dom0. Damaged if there is none; their names must be valid."""
    domains = [domain for domain in Metadata(safexml.parse(document)).domains if domain.name != names.ADMIN]
    if not domains:
        raise Damaged("the document has no domain")
    for domain in domains:
        if problem := names.new_domain_problem(domain.name):
            raise Refused(f"{domain.name}: {problem}")
        domain.volumes()
    return domains


def contents(
    domains: Iterable[str], volumes: Callable[[str], list[str]], files: Callable[[str], list[str]]
) -> Iterator[str]:
    """The lines of both verbs for each domain, with its name and the verb in front, and then its end.

    A domain for which one of them fails has no line.
    """
    for domain in domains:
        with suppress(QbError):
            lines = [f"volumes\t{text}" for text in volumes(domain)] + [f"files\t{text}" for text in files(domain)]
            yield "".join(f"{domain}\t{text}" for text in (*lines, "end\n"))


def good(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that a line can contain, each once."""
    return tuple(dict.fromkeys(text for text in texts if text and names.word_problem(text) is None))


def flag(value: bool) -> str:
    """The word for a condition."""
    return "yes" if value else "no"


def line(*fields: str) -> str:
    """Fields separated by tabs, with newline. Failed if a line cannot contain one of them."""
    for field in fields:
        if not field.isascii() or not field.isprintable():
            raise Failed(f"{field} cannot be printed in a line: only printable ASCII is allowed")
    return "\t".join(fields) + "\n"
