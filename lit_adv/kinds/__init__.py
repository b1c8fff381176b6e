"""A Kind is what a table of texts teaches: its columns, their tokens, the network and the task."""
