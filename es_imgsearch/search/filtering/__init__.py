"""Parts of filter clauses: values as people type them, and dates."""
