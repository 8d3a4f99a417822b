"""The stores that hold personal data, one subpackage per technology; each implements `ports.stores.Store`."""
