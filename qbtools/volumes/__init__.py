"""Reads and writes the volumes of this machine: one module for each kind, with one interface (kind.py).

    kind.py       the interface: Kind, Source and Target
    snapshotless.py  what all kinds without snapshots share
    kinds/        one module for each kind: files, block devices, logical volumes
    locate.py     the volume that a word of the command line means
    marks.py      the owner of a snapshot or an incomplete volume
    snapshots.py  snapshots of several volumes at one point in time, and their leftovers
    freezing.py   freezes a machine meanwhile

    reading.py    a Source to standard output
    writing.py    standard input to a Target
    readback.py   reads a Target back and compares
    kernel.py     kernel interfaces that Python lacks
    inuse.py      finds other users of a block device, and writers of a file
    files/        the parts of kinds/file.py
    lvm/          the parts of kinds/lvm.py

A further kind needs only one more module in kinds/.
"""
