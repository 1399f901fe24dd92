CREATE TABLE comity_ledgers (
  party TEXT NOT NULL,
  agreement TEXT NOT NULL,
  epsilon DOUBLE PRECISION NOT NULL,
  delta DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (party, agreement)
);
CREATE TABLE comity_charges (
  position BIGINT GENERATED ALWAYS AS IDENTITY,
  party TEXT NOT NULL,
  agreement TEXT NOT NULL,
  charge_id TEXT NOT NULL,
  event TEXT NOT NULL,
  state TEXT NOT NULL,
  PRIMARY KEY (position),
  CHECK (state IN ('reserved', 'committed', 'refunded')),
  UNIQUE (party, agreement, charge_id),
  FOREIGN KEY(party, agreement) REFERENCES comity_ledgers (party, agreement)
);
