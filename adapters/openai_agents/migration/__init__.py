"""Migration of histories from the tables of the SDK's session classes."""
