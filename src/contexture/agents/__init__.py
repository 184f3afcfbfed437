"""What decides what it sees next: the classical agents, and sequence models that act from their context."""
