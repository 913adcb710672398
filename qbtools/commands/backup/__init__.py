"""qb-backup: complete backups. Options and output are here; bin/qb-backup runs the stages, qbtools/runs decides.

qb_backup.py    the help text
dispatch.py     chooses the run for a command line
commandhelp.py  the help of one command
optionrules.py  which options can be used together
stagewords.py   the options for the stages
save.py         create; savehost.py: the domains of a host; saveseries.py: increments; seriesoptions.py: their options
open.py         list, verify and restore; openhost.py: restore to a host
"""
