"""LightningDataModules: generated reviews, local files, hub data sets; tokenised once."""
