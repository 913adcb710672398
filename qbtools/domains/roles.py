"""The roles of a domain for another one: template, network, template for DispVMs; and which domains can have them."""

from __future__ import annotations

from qbtools.domains.qubesxml import Domain

TEMPLATE = "template"
NETVM = "netvm"
DISPVM = "default_dispvm"
ROLES = (TEMPLATE, NETVM, DISPVM)
"""The properties that a plan shows; their values are names of domains."""

TEMPLATE_CLASS = "TemplateVM"
DISPOSABLE_CLASS = "DispVM"

# They own all their volumes. For an unknown class, the template property says whether it has a template.
_WITHOUT_TEMPLATE = (TEMPLATE_CLASS, "StandaloneVM", "AdminVM")
# The first releases of Qubes OS 4.0 wrote the second; qubes.vm.mix.dvmtemplate still reads it.
_FOR_DISPOSABLES = ("template_for_dispvms", "dispvm_allowed")
_WITH_TEMPLATE = ("AppVM", DISPOSABLE_CLASS)


def has_template(domain: Domain) -> bool:
    """Whether a domain of this class is made from a template."""
    if domain.kind in _WITHOUT_TEMPLATE:
        return False
    return domain.kind in _WITH_TEMPLATE or bool(domain.properties.get(TEMPLATE))


def is_disposable_template(domain: Domain) -> bool:
    """Whether DispVMs are made from it."""
    if domain.kind in (DISPOSABLE_CLASS, TEMPLATE_CLASS):
        return False
    return any(domain.flag(name) for name in _FOR_DISPOSABLES)


def lacks(domain: Domain, role: str, user: Domain) -> str | None:
    """Why domain cannot have that role for user; None if it can."""
    if role == NETVM:
        return None if domain.flag("provides_network") else "does not provide network"
    if role == DISPVM or user.kind == DISPOSABLE_CLASS:
        return None if is_disposable_template(domain) else "is not a template for DispVMs"
    return None if domain.kind == TEMPLATE_CLASS else "is not a template"


def rank(domain: Domain) -> int:
    """The order of creation: templates, templates for DispVMs, the rest."""
    return 0 if domain.kind == TEMPLATE_CLASS else 1 if is_disposable_template(domain) else 2
