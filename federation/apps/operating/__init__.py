"""A coordinator that stays: Flower's SuperLink behind two listeners, and runs one after another."""
