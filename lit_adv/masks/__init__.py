"""Which weights move? One small file per answer."""
