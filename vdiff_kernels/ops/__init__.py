"""The operators, one folder a family: what a call takes (call), its definition (reference), its form in the compiled library
(schema), and the public functions that make it (api). Backends stand between schema and api."""
