"""`vla-ros bench policies`: what inference, the node, the wire and tokens cost, beside floors of the same run."""
