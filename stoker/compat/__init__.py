"""What code that was written for others needs to run here."""
