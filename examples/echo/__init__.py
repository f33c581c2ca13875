"""An app with no model: the smallest one that can be served."""
