"""Weight conversion; filled below."""
