"""What qb-backup decides: which stages run, what they are told, what their reports mean, and what is done at the end.

wiring.py       the stages as children: what they are given, what they say, how they are ended
processtree.py  all that runs below us
hearing.py      the stream of their reports
verdict.py      the status of a run, out of what all stages said

creating.py     a run that saves volumes; savinghost.py: the domains of a host
opening.py      what all runs that open an archive share: the metadata, the routes, what came
checking.py     runs that only look: list and verify
filling.py      a run that restores to files and pools; making.py: to a host
targets.py      the targets of a restore, which are all looked at before the first byte
sidefiles.py    small files that get their name when the archive has its
"""
