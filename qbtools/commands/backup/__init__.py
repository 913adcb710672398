"""qb-backup: whole backups. Its options, and what it says; bin/qb-backup wires the stages, qbtools/runs decides.

qb_backup.py    the help text
dispatch.py     which run is meant
commandhelp.py  the help of one command
optionrules.py  which options go together
stagewords.py   the words that are handed on to the stages
save.py         create; savehost.py: the domains of a host
open.py         list, verify and restore; openhost.py: restore to a host
"""
