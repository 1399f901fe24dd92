"""Tells how nodes answer."""
