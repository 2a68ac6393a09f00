"""Importing this imports all of the program's commands; see `tests.support.program`."""

from modelyard.cli.root import ENTRIES, load

for _name in ENTRIES:
    load(_name)
