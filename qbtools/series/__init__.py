"""A series of backups: which archives there are, what each is based on, and which may be removed.

textlines.py  the common part of the texts below
ledger.py     the text that lists the archives
runtext.py    the text of a run that is not confirmed yet
retention.py  which archives are kept
place.py      what tells whether a file was copied or restored from a backup
directory.py  the directory of a series
choosing.py   whether a run saves everything or increments, and of which base
keeping.py    which snapshots and checkpoints are kept for the next run
indexes.py    confirms an index, so that it can be a base
"""
