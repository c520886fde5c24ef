"""Makes the Helm chart's schema and README from its values, which say everything once."""
