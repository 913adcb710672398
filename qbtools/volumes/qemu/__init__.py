"""The parts of kinds/qcow2.py, vmdk.py, vdi.py and vhdx.py: disk images, through the programs of QEMU.

imagekind.py  finds an image by its path
chain.py      decides which files an image may be read from
server.py     runs qemu-nbd and qemu-img
places.py     knows where the data of a disk lies in the files
source.py     reads the disk in an image
target.py     writes a new qcow2 image
"""
