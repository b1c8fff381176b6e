"""Word- and character-level attacks on text classifiers, batched across examples."""
