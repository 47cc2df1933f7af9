"""A network as a program: affine steps, pieces and biases. Knows nothing of attribution."""
