"""One module for each format: how there come to be tables, or how those before become it."""
