"""An app that takes the time of exchanges."""
