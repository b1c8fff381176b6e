"""What all HTML pages share: their style, and texts that cannot become tags. Nothing is fetched."""
