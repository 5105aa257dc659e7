"""The student in the forms that serve it, each checked against Keras, and the way back from a file to scores."""
