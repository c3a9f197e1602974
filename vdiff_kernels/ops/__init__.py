"""The operators: one folder a family, each with the same files (api, reference, native, autograd)."""
