"""Runtime adapters: tensors in, tensors out, one vendor a file."""
