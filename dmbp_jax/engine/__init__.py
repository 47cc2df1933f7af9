"""Large batches: equal padded batches, device memory, and what is read off the logits."""
