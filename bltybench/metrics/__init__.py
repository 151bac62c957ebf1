"""pandas, pure: frame in, frame out."""
