"""What kinds/file.py is made of.

source.py     a file that is read: a clone of it, the file under a guard, or plainly
guards.py     whether it changes meanwhile: a lease, or at least a look
clone.py      a reflink copy at one moment, with a name or without
target.py     a file that appears when it is whole
"""
