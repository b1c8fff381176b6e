"""What Hydra finds of lit_adv: sweepers and a launcher. Their work is done in lit_adv.sweeps."""
