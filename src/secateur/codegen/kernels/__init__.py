"""Kernels: a folder for each family and a row in ``families.FAMILIES``. Nothing else names one.

Adding a family: a folder with its specs (``spec.py``), how it is planned (``plan.py``) and how it is written
(``template.py``), and one row.
"""
