"""Logical volumes: the parts of kinds/lvm.py.

tools.py        runs the programs of lvm2
facts.py        facts about volumes, from lvm
lvnames.py      the names that lvm accepts
dm.py           facts about device-mapper devices, from the kernel
lock.py         a lock for a pool or a group

source.py       reads a logical volume
snapshot.py     creates and removes snapshots; removes leftovers of dead runs
thinmap.py      the map of a thin volume, from the metadata of its pool
reservation.py  reserves the metadata of the pool meanwhile

target.py       chooses the volume to fill, and how
newvolume.py    creates a volume under a temporary name
pool.py         the room of its pool
exchange.py     gives it its name, or replaces another volume
"""
