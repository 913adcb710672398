"""Where the bytes of volumes live on this host: one module a kind, one interface (kind.py).

    kind.py       the interface: Source and Target
    file.py       regular files
    block.py      block devices
    locate.py     which kind a word of the command line means

    reading.py    a Source to standard output
    writing.py    standard input to a Target
    verify.py     a Target read back
    kernel.py     what the kernel offers and Python lacks
    inuse.py      who else uses a block device

A further kind is one more module beside file.py and block.py, and a line in locate.py.
"""
