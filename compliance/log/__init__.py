"""An append-only Merkle log on disk: what one party writes, any other verifies offline.

`merkle` hashes and proves (RFC 6962), `tiles` lays the tree out in files (C2SP tlog-tiles), `note`
and `checkpoint` sign its head (C2SP signed-note, tlog-checkpoint), `writer` appends durably,
`verifier` reads everything and trusts nothing. The verifier never imports the writer, and nothing
is re-exported here, so that an auditor's process holds no code that could write.
"""
