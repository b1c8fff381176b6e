"""Which number do the weights descend? One small file per answer."""
