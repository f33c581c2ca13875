"""What the runner is measured beside; each in processes of its own."""
