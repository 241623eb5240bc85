"""The local page of `distnet serve`: digits are drawn, and a network answers while they are."""
