"""Apps that behave well or badly in one way each, for the tests of nodes and of the whole."""
