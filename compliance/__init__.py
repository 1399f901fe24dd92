"""What was promised, what was done, and where the proof is.

Signed agreements (`agreement`), consent (`consent`), records of what was done (`records`) in an
append-only Merkle log (`log`), and the signatures under all of them (`signing`). An auditor needs
nothing but this package; it never sees a raw identifier or a feature value.
"""
