"""One question each, answered on a page of the documentation."""
