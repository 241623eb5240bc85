"""How long steps will take on more ranks, hosts and links than there are: `distnet plan`."""
