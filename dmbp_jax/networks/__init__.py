"""Named networks: `Network`, `load`, their registry, downloads, preprocessing and class names."""
