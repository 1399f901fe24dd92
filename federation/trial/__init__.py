"""A whole collaboration on one machine: make the parties' folders, run, judge, report.

Nothing here runs at a party in earnest: `evaluation` sees every party's rows at once.
"""
