"""One step of training, on every rank: how all come to one state, and what is checked."""
