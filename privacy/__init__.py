"""How a number can leave without a person leaving with it.

Identifiers (`identifiers`), private set intersection (`psi`), privacy accounting (`accounting`),
private training (`training`), integer noise (`mechanisms`), secure aggregation (`secagg`) and the
only source of entropy (`randomness`). Nothing here reads a file, opens a socket, or knows of
agreements; the ledger's own database is the one exception.
"""
