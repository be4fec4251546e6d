"""Run folders: what is in one, and its plots."""
