"""What holds the weights near their past? One small file per answer."""
