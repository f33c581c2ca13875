"""What ``queues`` measures Stoker against, each in processes of its own, and how it asks them."""
