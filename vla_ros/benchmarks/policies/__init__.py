"""What policies cost: the node around them, inference, the way to another process, and tokens."""
