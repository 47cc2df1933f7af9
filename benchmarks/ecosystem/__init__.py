"""Networks of other packages, unchanged."""
