"""A party and a coordinator seen from outside: health, figures, lines of events, spans.

Everything here is for whoever runs the process: counts, budgets and times, never an identifier, a
hash of one, a feature value or a count of people. Nothing here is a message to another party.
"""
