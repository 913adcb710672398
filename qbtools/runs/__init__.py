"""The decisions of qb-backup: which stages run, their input, the meaning of their reports, and the end of a run.

wiring.py       runs the stages as children: their input, their reports, their end
hearing.py      the stream of reports
verdict.py      the status of a run, from the reports of all stages

creating.py     a run that saves volumes; savinghost.py: the domains of a host
opening.py      the common part of runs that open an archive: metadata, routes, files
checking.py     runs that only read: list and verify
filling.py      a run that restores to files and pools; making.py: to a host
targets.py      checks the targets of a restore before the first byte
sidefiles.py    small files that get their name when the archive is complete
"""
