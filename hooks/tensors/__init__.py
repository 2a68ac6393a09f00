"""Which tensors differ between two revisions: by name, shape and type at once, by content once it is read."""
