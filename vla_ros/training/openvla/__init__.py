"""Fine-tuning OpenVLA: examples in tokens, pictures with questions beside them, and adapters that learn."""
