"""What runs on a GPU: kernels, bytes, FLOPs."""
