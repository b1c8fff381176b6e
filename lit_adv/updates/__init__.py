"""How do the weights step? One small file per answer."""
