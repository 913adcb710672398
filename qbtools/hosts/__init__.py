"""Hosts, which own domains and volumes on this machine: programs called qb-host-NAME (see qb-host(7)).

client.py     what a host program can do, and what it prints; calls.py runs it
restoring.py  creates the domains of a plan on a host, and finishes or removes them
saving.py     decides what is saved from a host; savingtext.py shows it
results.py    the results
unsaved.py    the things on a host that no run saves

local.py      the common verbs of the hosts that come with qbtools
verbtext.py   what these verbs read and print
store.py      a file with the metadata of all their domains, replaced as a whole
further.py    files of a domain that are not volumes
directory.py  a host that is a directory
thinpool.py   a host that is a thin pool
libvirt/      a host whose domains belong to libvirt
"""
