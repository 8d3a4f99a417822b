"""A restore that is rehearsed in a scratch database."""
