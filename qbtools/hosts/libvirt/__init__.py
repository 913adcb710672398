"""The parts of the host that libvirt manages.

uri.py         which libvirt it is
virsh.py       runs virsh
naming.py      names for domains whose own name an archive cannot have
machine.py     reads the XML of a domain: its volumes, and what is not saved of it
holding.py     holds the disks of a machine that runs
readers.py     ends who reads the disks of such a machine
watching.py    a process that looks after them while they are held
facts.py       what this host has for a machine
allowed.py     what a restore takes of the XML in an archive
devices.py     the disks and network cards of a machine that is restored
definition.py  makes the XML of a machine that is restored
images.py      the volumes of machines that are restored
poolvolumes.py those of them that are in pools without files
tpm.py         the state of emulated TPMs
records.py     what the records of unfinished domains have
unfinished.py  the domains that a restore has not finished
host.py        the verbs of qb-host(7)
"""
