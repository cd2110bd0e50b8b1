"""What pruning and rewriting keep."""
