"""One module an executable: the docopt text that is its help, and the few lines that call the rooms."""
