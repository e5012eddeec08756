"""Run folders, `saved/<run>/`: their records, and how they are found, imported and checked."""
