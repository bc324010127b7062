"""Running a model: what to sample (params, sample), the loop (generate), what people use (llm)."""
