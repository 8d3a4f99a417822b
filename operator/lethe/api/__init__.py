"""The contract with users: the custom resources, and the CRDs generated from them."""
