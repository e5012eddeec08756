"""What a network costs: counts, latency by part and stage, memory, energy, and all of them over many cases."""
