"""What can be read, pruned and trusted: networks, files, mutations."""
