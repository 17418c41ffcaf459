"""Policies in another process, environment or machine: what goes over the wire, who asks, and who answers."""
