"""The kinds of volumes. Each module has one as KIND, and the module's name is the scheme."""
