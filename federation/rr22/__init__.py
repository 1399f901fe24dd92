"""Matching over a direct link between two parties, by a program in an environment of its own.

`configuration` says where that environment and the party's address are. `link` is the tunnel to
the other party; `program` starts, asks and ends what speaks through it, whose script is `worker`,
which nobody here imports.
"""
