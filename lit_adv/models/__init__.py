"""Networks with their tokenizers: from scratch, or pretrained."""
