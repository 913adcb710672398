"""Stages between a volume and its sealed file, one module a program; and qb-snapshot, which they read from."""
