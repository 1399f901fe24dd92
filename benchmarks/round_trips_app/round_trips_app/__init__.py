"""An app whose messages do next to nothing."""
