"""What watches a training: measures, draws, averages; training itself goes on as without it."""
