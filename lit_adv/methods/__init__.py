"""How do the inputs ascend? One LightningModule per file, the paper's loop in `training_step`."""
