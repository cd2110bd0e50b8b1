"""Measurements: scripts whose rows stand in ``results/``. Run one as ``python -m bench.speed.latency``."""
