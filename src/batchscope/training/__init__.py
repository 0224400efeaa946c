"""Training with Keras: the only place that imports it."""
