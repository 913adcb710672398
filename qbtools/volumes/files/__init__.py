"""The parts of kinds/file.py.

source.py     reads a file: a clone of it, the file with a guard, or the plain file
guards.py     detects changes meanwhile: with a lease, or at least with checks
clone.py      a reflink copy at one point in time, with a name or without
target.py     writes a file that gets its name when it is complete
"""
