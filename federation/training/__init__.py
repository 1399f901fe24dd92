"""What a party does when a model is trained, and what it keeps on its disk for that.

`local` trains with noise of its own, `summing` takes part in secure sums on rows that are read once
for a job (`rows`), `publishing` keeps the model that comes of either.
"""
