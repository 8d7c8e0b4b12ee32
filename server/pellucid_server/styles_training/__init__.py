"""Training a feed-forward style network on perceptual losses, which is a command of its own."""
