"""Problems that are acted in: bandits, grids, memory tasks and small decision processes, many worlds at once."""
