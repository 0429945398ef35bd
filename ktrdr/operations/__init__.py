"""The life of an operation: its values, its transitions, and the service that guards them."""
