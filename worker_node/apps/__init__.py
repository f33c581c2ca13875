"""The apps that come with Stoker."""
