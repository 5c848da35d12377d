"""Feature columns: what a Keras network computes from frames or flow."""
