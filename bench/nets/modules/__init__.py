"""Module kinds and usages that people bring, each small and of our own code: see ``bench.reach.modules``."""
