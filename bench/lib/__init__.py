"""What scripts share: rows, processes that are measured, runtimes by turns, plots."""
