"""The kinds of volumes that there are: each module here has one, as KIND, and its name is the scheme."""
