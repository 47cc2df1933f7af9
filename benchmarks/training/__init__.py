"""Training of the built-in network and its variants."""
