"""The student and teacher networks: packed documents in, scores out."""
