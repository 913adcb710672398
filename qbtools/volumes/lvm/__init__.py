"""Logical volumes: what kinds/lvm.py is made of.

tools.py        runs the programs of lvm2
facts.py        what lvm knows of a volume
lvnames.py      which names lvm takes
dm.py           what the kernel knows of a device-mapper device
lock.py         one of us at a time with a pool or a group

source.py       a logical volume that is read
snapshot.py     a snapshot of ours, from its making to its end; what dead runs left
thinmap.py      where the data of a thin volume lies, out of the pool's metadata
reservation.py  the pool's metadata held still meanwhile

target.py       which volume is filled, and how
newvolume.py    one that is made, under a temporary name
pool.py         room of its pool
exchange.py     how it gets its name, and takes the place of another
"""
