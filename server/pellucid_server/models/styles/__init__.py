"""Fast style: feed-forward networks that paint a photo in one pass, rebuilt from stored weights."""
