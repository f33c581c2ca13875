"""One module for each noun of the native API. Each is a thin shell over ``stoker``."""
