"""A party's own folder: its configuration, keys, agreement, and where everything else lies.

```
PARTY/
  party.json       what this party is and where its data lies
  agreement.json   the contract, signed by every party
  agreements/ notices/   its earlier versions; notices that end it
  keys/            identity, log, cosigning, encryption: seeds, readable by their owner only, and
                   sealed where there is an unsealing key (see `safe`)
  data/            tables and consents (or databases elsewhere)
  log/             the append-only log (C2SP tlog-tiles), and what witnesses cosigned
  shown/           its head on the way to them
  ledger.sqlite    the privacy budget (or a database elsewhere)
  jobs/JOB/        what a job must remember between two messages
  api/             who may call its HTTP API, and what they were answered
  outbox/          answers given, kept so that a repeated question gets the same answer
  models/ segments/   results; segments may go elsewhere
  attacks/ cards/  what was found out about models, at home
  retention/       the latest moment believed, and holds
  retraining/      models that have to be trained again
  policy.cedar     the party's own prohibitions, if any
```

Guarantees: files appear whole or not at all (`write_atomically`); secrets are created with mode
0600; no key is made anew once there is an agreement.

`places` says where, `keys` has its keys and `folder` opens what is in it; `configuration` says what
the party is, `contract` reads an agreement, `lock` holds the folder, `writing` writes; `damage` is
what its own files are found with.

Leaves to others: what is written (`node`, `gate`), what an agreement means (`compliance`).
"""

from federation.party.configuration import (
    JOURNAL,
    DataConfig,
    FileOrTable,
    KeyColumns,
    LabelRule,
    PartyConfig,
    SeedRule,
    SegmentPlace,
    SegmentsConfig,
    TableConfig,
)
from federation.party.contract import read_agreement, verified_agreement
from federation.party.damage import undamaged
from federation.party.folder import PartyFolder
from federation.party.lock import copied, locked
from federation.party.writing import make_private, write_atomically

__all__ = [
    "JOURNAL",
    "DataConfig",
    "FileOrTable",
    "KeyColumns",
    "LabelRule",
    "PartyConfig",
    "PartyFolder",
    "SeedRule",
    "SegmentPlace",
    "SegmentsConfig",
    "TableConfig",
    "copied",
    "locked",
    "make_private",
    "read_agreement",
    "undamaged",
    "verified_agreement",
    "write_atomically",
]
