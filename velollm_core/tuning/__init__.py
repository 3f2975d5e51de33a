"""Racing settings against each other by measurement."""
