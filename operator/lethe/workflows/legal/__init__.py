"""A LegalRequest, from its registration until it is answered and the user has been notified."""
