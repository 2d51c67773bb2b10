"""Names of the files that a user opens."""

PAGE = "report.html"
SUMMARY = "summary.json"
AUDIT = "audit.json"
ENTROPY = "entropy.svg"
