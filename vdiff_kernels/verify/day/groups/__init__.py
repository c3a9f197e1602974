"""What `vdiff verify` runs: one module a group, each with `run(day)`."""
