"""The two cameras: when an event happens, what it says, and how it is sent."""
