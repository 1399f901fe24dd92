"""What a party does when people are matched, and what it keeps on its disk for that.

`pairs` and `aligning` are its part of the two kinds of jobs, `bringing` makes the set that it
brings (`token_set`), `history` limits what many matches together may tell.
"""
