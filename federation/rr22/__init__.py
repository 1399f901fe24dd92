"""Matching over a direct link between two parties, by a program in an environment of its own.

`configuration` says where that environment and the party's address are, `link` starts the program
and carries what it says, `worker` is the program's script, which nobody here imports.
"""
