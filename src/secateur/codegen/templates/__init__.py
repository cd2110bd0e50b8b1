"""Kernels by template: one file a family, each ``spec -> PrimFunc``."""
