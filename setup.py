"""Everything is declared in pyproject.toml; this file lets tools that look for setup.py install it."""

from setuptools import setup

setup()
