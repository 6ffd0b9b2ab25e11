"""What passes between the steps, what stands in the lake, and what can go wrong."""
