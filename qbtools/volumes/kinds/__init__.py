"""The kinds of volumes that there are: each module here has one, as KIND, and is found by its being here."""
