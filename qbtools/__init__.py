"""qbtools: save and restore the volumes of virtual machines in the Qubes OS backup format."""

__version__ = "0.2.0"
