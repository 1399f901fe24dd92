"""Who does what, in which order, over which wire.

The only package that imports Flower, and the only one that imports `privacy`, `connectors` and
`compliance`. A party's node (`node`, `work`) answers messages; nothing leaves it but through
`gate`. The coordinator (`coordinator`) drives the jobs (`jobs`). `embedded` runs everybody in one
process over the same apps (`apps`) and messages that a deployment uses.

Guarantees: Flower's telemetry and update checks are off in every process that imports this before
Flower, unless the environment turns them on. Flower's own commands need the same two variables in
theirs: see `docs/deploy.md`.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
