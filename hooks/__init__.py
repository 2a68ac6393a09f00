"""What a push means for models: gates before it is accepted; metadata, comparisons and triggers after it."""
