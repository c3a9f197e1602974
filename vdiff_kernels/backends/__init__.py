"""What serves a call: the table of operators, and one file a backend."""
