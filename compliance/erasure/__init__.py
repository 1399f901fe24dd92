"""Requests to erase a person: how they are asked, answered, followed up and shown to be done.

`wire` reads and writes the IAB's tokens, `completion` what is signed once all is done, `following`
is the requester's side of one request at one peer, `execution` the recipient's.
"""
