"""Models that Stoker trained itself and ships: real weights, small enough for a test and for a demo without a GPU."""
