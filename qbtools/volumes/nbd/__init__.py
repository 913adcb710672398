"""The parts of kinds/nbd.py, which images/ uses too: a client of the NBD protocol.

binding.py     finds the Python binding of libnbd
connection.py  one connection to a server, which a signal can interrupt
source.py      reads an export
target.py      writes an export in place
elsewhere.py   asks for a size under another Python
"""
