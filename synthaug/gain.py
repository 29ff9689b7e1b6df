"""MEASURE: arms x seeds -> paired gains with confidence intervals."""
