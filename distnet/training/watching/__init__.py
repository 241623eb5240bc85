"""What tells of a run while it trains: on the terminal, in figures, hashes and traces."""
