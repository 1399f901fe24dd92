"""A party's HTTP API: what its website, or its consent platform, says and asks about people.

`application` answers, over `clients` (who may ask what), `buckets` (how often), `answers` (each
request once), `problems` (what is said when it cannot be done) and `bodies` (what is said
otherwise); `consents`, `requests` and `deletions` do what is asked; `telling` has the log told;
`configuration` is the file, `server` listens.

Guarantees: an identifier stands in the body of a request alone, and in no path, log line or error.
What it answers goes to the party's own systems: other parties are answered by the gate.
"""
