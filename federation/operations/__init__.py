"""What a coordinator's operator has: a state folder, tokens, and runs that outlive processes."""
