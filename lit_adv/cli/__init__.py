"""Commands: `lit-adv train`, and whatever else has a file here."""
