"""What owns domains and volumes on this side: programs called qb-host-NAME (see qb-host(7)).

client.py     runs one, and reads what it prints
restoring.py  the domains of a plan made on a host, and finished or removed
saving.py     what of a host is saved; savingtext.py: shown
results.py    how it went
unsaved.py    what a host has and no run saves

local.py      what the hosts that come with it share: their verbs
store.py      a file with the metadata of all their domains, replaced as a whole
further.py    files of a domain that are no volumes
directory.py  a host that is a directory
thinpool.py   a host that is a thin pool
"""
