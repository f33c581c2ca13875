"""What is measured, and the apps that it is measured with."""
