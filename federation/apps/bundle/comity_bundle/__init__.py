"""A stub: what runs at a party is the Comity that the party installed."""
