"""Pictures of a sweep: each is a table of figures that it draws as SVG and by matplotlib alike."""
