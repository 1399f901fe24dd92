"""An engine for private set intersection in code that is generated at run time.

`lanes` writes arithmetic on vectors, `limbs` field elements with proven bounds, `field51` and
`field25` the multiplications of two radixes, `powers` inverses and squares, `curve` the points,
`sha512` the hash; `program` turns all of it into machine code for one of `instruction_sets`, and
`engine` runs that.

Importing most of them needs llvmlite: `privacy.psi.engines` does so only when it pays.
"""
