"""Logical volumes: what kinds/lvm.py is made of.

tools.py        runs the programs of lvm2
facts.py        what lvm knows of a volume
dm.py           what the kernel knows of a device-mapper device

snapshot.py     a snapshot of ours, from its making to its end; what dead runs left
source.py       a logical volume that is read
thinmap.py      where the data of a thin volume lies, out of the pool's metadata
reservation.py  the pool's metadata held still meanwhile
lock.py         one of us at a time with a pool
"""
