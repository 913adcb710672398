"""Stages between a volume and its sealed file, one module for each program; and qb-snapshot."""
