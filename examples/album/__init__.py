"""Two apps, of which one has its work done by the other."""
