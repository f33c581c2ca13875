"""Apps and clients as a user of Stoker writes them. Each runs as it stands, from the project's folder."""
