"""Learning on a stream: a model conditioned on its recent pairs and trained online at the same time."""
