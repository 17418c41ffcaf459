"""Training: recorded episodes to examples, examples to the weights of a policy."""
