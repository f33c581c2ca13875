"""The control plane: HTTP and Server-Sent Events in front of the queue, and the control loop beside it. No GPU here."""
