"""Which number do the weights descend? One small file per answer, joined to FineTuner at one seam."""
