"""What `distnet sweep` is made of: which trials there are, how each stands, the page about them."""
