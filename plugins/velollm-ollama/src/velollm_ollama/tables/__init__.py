"""The tables that settings, lint, writers and the guide share.

``since``, ``until`` and defaults follow from the releases' own sources; a test compares them with the names recorded
from each release.
"""
