"""How faithful maps are, on networks with real weights and generated pictures."""
