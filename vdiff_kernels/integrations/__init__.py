"""The layers of published video models, expressed by this package's operators on the layers' own parameters."""
