"""A DeletionRequest, from its acceptance until nothing of the person is left in any store."""
