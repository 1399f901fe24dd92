"""Who does what, in which order, over which wire.

The only package that imports Flower, and the only one that imports `privacy`, `connectors` and
`compliance`. A party's node (`node`, `work`) answers messages; nothing leaves it but through
`gate`. The coordinator (`coordinator`) drives the jobs (`jobs`). `embedded` runs everybody in one
process over the same apps (`apps`) and messages that a deployment uses.
"""
