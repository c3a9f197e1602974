"""What the native CPU kernels take, beside the same in plain PyTorch and beside counted floors: one table a family."""
