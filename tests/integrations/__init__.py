"""Every adapter against the block it serves, built from the package it comes from."""
