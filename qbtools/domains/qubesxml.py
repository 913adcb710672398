"""Reads the metadata of Qubes OS 4 (qubes.xml; see qb-format(5)): the domains, which are saved, and their paths.

Everything that qbtools uses is checked here. The rest stays unchanged in the tree, so that it can be written again.
Metadata of Qubes OS 2 to 3.2 is translated first (older.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

from qbtools.domains import names, renaming
from qbtools.errors import Damaged
from qbtools.lean import NamedTuple

LIBVIRT = "libvirt"
"""The element below a domain that has its XML of libvirt. Qubes OS ignores it."""

# The root element of the metadata of Qubes OS 3.2 and earlier.
_OLDER_ROOT = "QubesVmCollection"

# The texts that Qubes OS reads as True (qubes.property.bool); it writes the first.
_TRUE = ("true", "yes", "on", "1")


class Volume(NamedTuple):
    """A volume of a domain in qubes.xml. size: bytes, None if it is not given."""

    name: str
    size: int | None
    save_on_stop: bool


class Domain:
    """One domain. name, kind (its class) and label are checked; element is its XML.

    properties and features: texts by name, "" if there is none. For a feature "" means false.
    path: the directory of its files in the archive (`vmQID/`; `dom0-home/USER` for dom0), None if it is not saved.
    whole: its whole directory is one file of the archive, called `.`, as for templates of Qubes OS 2 to 3.2.
    other_name: its name in libvirt, if it is from there and a qubes.xml cannot have that name; otherwise None.
    """

    def __init__(self, element: Element, labels: dict[str, str], older: bool = False) -> None:
        """older: it is in an archive of Qubes OS 2 to 3.2, whose paths may be `appvms/NAME/` and the like."""
        self.element = element
        self._older = older
        self.kind = element.get("class", "")
        if problem := names.class_problem(self.kind):
            raise Damaged(f"a domain has the class {names.quoted(self.kind)}: {problem}")
        untrusted_properties = _table(element, "properties/property", f"a domain of class {self.kind}")
        self.name = names.ADMIN if self.kind == names.ADMIN_CLASS else untrusted_properties.get("name", "")
        if problem := names.domain_problem(self.name):
            raise Damaged(f"a domain is called {names.quoted(self.name)}: {problem}")
        if self.name == names.ADMIN and self.kind != names.ADMIN_CLASS:
            raise Damaged(f"a domain of class {self.kind} is called {names.ADMIN}")
        self.properties = untrusted_properties
        self.features = _table(element, "features/feature", f"domain {self.name}")
        label = self.properties.get("label", "")
        if label not in labels:
            raise Damaged(f"domain {self.name}: its label is not among the labels: {names.quoted(label)}")
        self.label = labels[label]
        self.path = self._path() if self.features.get("backup-content") else None
        self.whole = older and self.kind == "TemplateVM"
        untrusted_name = element.findtext(f"{LIBVIRT}/domain/name") or None
        self.other_name = None if untrusted_name == self.name else untrusted_name

    def _path(self) -> str:
        untrusted_path = self.features.get("backup-path", "")
        known = names.is_older_path if self._older else names.is_domain_path
        known = names.is_home if self.kind == names.ADMIN_CLASS else known
        if not known(untrusted_path):
            wanted = "dom0-home/USER" if self.kind == names.ADMIN_CLASS else "vmQID/"
            raise Damaged(f"domain {self.name}: its backup-path is {names.quoted(untrusted_path)}, not {wanted}")
        return untrusted_path

    def flag(self, name: str, default: bool = False) -> bool:
        """A property that is True or False; default if it is not set."""
        text = self.properties.get(name, "").lower()
        return text in _TRUE if text else default

    def volumes(self) -> list[Volume]:
        """Its volumes, in order. Damaged if one occurs twice or is malformed."""
        found: dict[str, Volume] = {}
        for element in self.element.findall("volume-config/volume"):
            volume = self._volume(element)
            if volume.name in found:
                raise Damaged(f"domain {self.name}: the volume {volume.name} occurs twice")
            found[volume.name] = volume
        return list(found.values())

    def _volume(self, element: Element) -> Volume:
        name = element.get("name", "")
        if problem := names.volume_problem(name):
            raise Damaged(f"domain {self.name}: a volume is called {names.quoted(name)}: {problem}")
        untrusted_size = element.get("size")
        size = None if untrusted_size is None else names.number(untrusted_size)
        if untrusted_size is not None and size is None:
            raise Damaged(
                f"domain {self.name}: the size of its volume {name} is not a number: {names.quoted(untrusted_size)}"
            )
        untrusted_flag = element.get("save_on_stop", "False")
        if untrusted_flag not in ("True", "False"):
            raise Damaged(f"domain {self.name}: volume {name}: save_on_stop is neither True nor False")
        return Volume(name, size, untrusted_flag == "True")


class Metadata:
    """A whole qubes.xml. domains: all, in its order, with different names and paths; root: the tree.

    by_name: the same domains. labels: the names of the labels, in their order.
    older: it is from Qubes OS 2 to 3.2; root is the translation to Qubes OS 4.
    """

    def __init__(self, root: Element, warn: Callable[[str], None] | None = None) -> None:
        """Damaged if a part that Qubes OS needs for a restore is missing or malformed.

        warn: for the metadata of an archive. A domain whose name cannot be used gets another one, so that it does not
        stop the others, and warn gets a sentence about it. Without warn such a name is Damaged.
        """
        self.older = root.tag == _OLDER_ROOT
        if self.older:
            from qbtools.domains import older

            root = older.converted(root)
        _check_root(root)
        if warn is not None:
            renaming.make_readable(root, warn)
        self.root = root
        labels = _labels(_only(root, "labels"))
        _only(root, "properties")
        self.labels = list(dict.fromkeys(labels.values()))
        self.domains: list[Domain] = []
        seen: set[str] = set()
        for element in _only(root, "domains").findall("domain"):
            domain = Domain(element, labels, self.older)
            # A name has no "/", a path has one: they never meet in the set.
            for key in (domain.name, domain.path):
                if key in seen:
                    raise Damaged(f"two domains have the same name or backup-path: {key}")
                if key is not None:
                    seen.add(key)
            self.domains.append(domain)
        self.by_name = {domain.name: domain for domain in self.domains}
        if names.ADMIN not in self.by_name:
            raise Damaged(f"qubes.xml has no domain {names.ADMIN}")

    def named(self, name: str) -> Domain | None:
        """The domain with this name, or with this other_name; None if there is none."""
        found = (domain for domain in self.domains if domain.other_name == name)
        return self.by_name.get(name) or next(found, None)

    def saved(self) -> Iterator[Domain]:
        """The domains whose files are in the archive."""
        return (domain for domain in self.domains if domain.path is not None)


def _check_root(root: Element) -> None:
    if root.tag != "qubes":
        raise Damaged(f"this is not a qubes.xml: its root is {names.quoted(root.tag)}")
    version = root.get("version", "3.0")
    if version != "3.0":
        raise Damaged(f"qubes.xml has the unknown version {names.quoted(version)}")


def _only(root: Element, tag: str) -> Element:
    """The one child of that name."""
    found = root.findall(tag)
    if len(found) != 1:
        raise Damaged(f"qubes.xml has {'no part' if not found else 'more than one part'} {tag}")
    return found[0]


def _labels(element: Element) -> dict[str, str]:
    """The name of a label by its id (`label-1`) and by its name: properties use both."""
    labels: dict[str, str] = {}
    for label in element.findall("label"):
        name = label.text or ""
        if name:
            labels[label.get("id") or name] = name
            labels[name] = name
    return labels


def _table(element: Element, path: str, whose: str) -> dict[str, str]:
    """Texts by the attribute `name` of the elements at path. Damaged if a name is missing or occurs twice."""
    table: dict[str, str] = {}
    for item in element.findall(path):
        name = item.get("name")
        if name is None:
            raise Damaged(f"{whose}: a {item.tag} has no name")
        if name in table:
            raise Damaged(f"{whose}: the {item.tag} {names.quoted(name)} occurs twice")
        table[name] = item.text or ""
    return table
