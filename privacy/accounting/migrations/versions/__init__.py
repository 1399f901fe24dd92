"""One module for each format after the first: how tables of the one before become it."""
