"""The cost of a network: counts, latency by part and stage, memory and energy, over many cases."""
