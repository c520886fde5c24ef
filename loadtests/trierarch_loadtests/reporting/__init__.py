"""What a run found: counts, histograms, the ledger check, the verdict and the files."""
