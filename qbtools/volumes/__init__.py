"""Where the bytes of volumes live on this host: one module a kind, one interface (kind.py).

    kind.py       the interface: Kind, Source and Target
    kinds/        one module a kind: files, block devices, logical volumes
    locate.py     which volume a word of the command line means
    marks.py      whose a snapshot or a half-made volume is
    snapshots.py  snapshots of several volumes at one point in time, and what is left of them
    freezing.py   a machine that holds still meanwhile

    reading.py    a Source to standard output
    writing.py    standard input to a Target
    readback.py   a Target read back
    kernel.py     what the kernel offers and Python lacks
    inuse.py      who else uses a block device, or writes to a file
    files/        what kinds/file.py is made of
    lvm/          what kinds/lvm.py is made of

A further kind is one more module in kinds/, and nothing else.
"""
