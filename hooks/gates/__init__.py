"""Gates, one module each: what a push of a model must not contain."""
