"""The control loop: what must happen to jobs though nobody asks. Any number of replicas may run."""
