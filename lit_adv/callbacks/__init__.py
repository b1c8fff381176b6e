"""What watches a training: measures, draws; never touches gradients or weights."""
